"""How the service's processes log: one line each, to standard error."""

from __future__ import annotations

import logging


def configure(process: str) -> None:
    """Log from INFO on, with the process' name; the libraries' own chatter from WARNING on."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {process} %(levelname)s %(message)s")
    for name in ("uvicorn", "alembic", "sqlalchemy", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
