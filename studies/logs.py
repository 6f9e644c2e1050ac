"""How every process logs: one line for each thing that happens, to standard error.

For people the line is text with its ids at the end, as `study=digits trial=17`; for programs it is a JSON object.
What is logged may hold names that somebody else chose, so nothing that would begin a line, or steer a terminal,
gets through as it is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType

from studies.errors import ArenaError

FORMAT_VARIABLE = "LR_ARENA_LOG_FORMAT"

IDS = ("study", "trial", "attempt", "worker", "request")
"""What a line may be about, given as `log.info(..., extra={"trial": 17})`."""

_BARE = re.compile(r"[\w.+/:@-]+")


class LogFormat(StrEnum):
    """The form of a line."""

    TEXT = "text"
    JSON = "json"


def format_from_environment(environment: Mapping[str, str] = os.environ) -> LogFormat:
    """The form that LR_ARENA_LOG_FORMAT names; text if it names none."""
    given = environment.get(FORMAT_VARIABLE) or LogFormat.TEXT
    try:
        return LogFormat(given)
    except ValueError:
        known = " or ".join(LogFormat)
        raise ArenaError(f"{FORMAT_VARIABLE} must be {known}, but got {given!r}") from None


def log_to_stderr(process: str, form: LogFormat, quiet: Sequence[str] = (), **ids: object) -> None:
    """Log from INFO on; the `quiet` loggers, libraries' own chatter, from WARNING on.

    process: the name of this process, in every line. ids: ids that every line of it bears.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(process, form, ids))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_last_words


class Lines(logging.Formatter):
    """A record as one line. In text a traceback follows it, in lines that begin with a space."""

    def __init__(self, process: str, form: LogFormat, ids: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._process = process
        self._form = form
        self._ids = dict(ids or {})

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ids = {name: value for name in IDS if (value := self._id(record, name)) is not None}
        message = record.getMessage()
        traceback = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
        if self._form is LogFormat.JSON:
            line = {
                "time": time,
                "level": record.levelname,
                "process": self._process,
                "pid": record.process,
                "logger": record.name,
                "message": message,
                **ids,
            }
            if traceback is not None:
                line["traceback"] = traceback
            return json.dumps(line, default=str)
        words = [time, self._process, record.levelname, _plain(message)]
        first = " ".join([*words, *(f"{name}={_bare(str(value))}" for name, value in ids.items())])
        return "\n".join([first, *(f"  | {_plain(line)}" for line in (traceback or "").splitlines())])

    def _id(self, record: logging.LogRecord, name: str) -> object:
        return getattr(record, name, self._ids.get(name))


def _plain(text: str) -> str:
    """The text with everything escaped that does not print: ends of lines, escape codes, changes of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bare(value: str) -> str:
    """The value as it is where it cannot be taken for anything else, else in quotes."""
    return value if _BARE.fullmatch(value) else json.dumps(value)


def _log_last_words(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("this process ends by an error", exc_info=(kind, error, traceback))
