"""How the service's processes log: see `studies.logs`."""

from __future__ import annotations

from studies.logs import LogFormat, format_from_environment, log_to_stderr

QUIET = ("uvicorn", "alembic", "sqlalchemy", "httpx")


def configure(process: str, form: LogFormat | None = None) -> None:
    """Log with the process' name; left out, the form is the one that LR_ARENA_LOG_FORMAT names."""
    log_to_stderr(process, form or format_from_environment(), QUIET)
