"""Lines of the log: one for each thing that happens, whatever it is about."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.errors import ArenaError
from studies.logs import IDS, Lines, LogFormat, format_from_environment

WHEN = 1_790_000_000.123456
FORGED = "x\n2026-09-21T14:13:20.123Z web ERROR all is lost \x1b[2J\r\u2028\x85 \u202e"


def record(message: str = "started", *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("workers.agent", logging.INFO, "agent.py", 1, message, args, None)
    made.created = WHEN
    made.process = 77
    for name, value in more.items():
        setattr(made, name, value)
    return made


def failed() -> logging.LogRecord:
    try:
        raise ValueError(FORGED)
    except ValueError:
        return record("cannot", exc_info=sys.exc_info())


def test_text_has_time_process_level_message_and_the_ids_at_the_end() -> None:
    line = Lines("worker", LogFormat.TEXT, {"worker": "w1"}).format(
        record("%s: started", "digits", trial=17, study="a b")
    )
    assert line == '2026-09-21T14:13:20.123Z worker INFO digits: started study="a b" trial=17 worker=w1'


def test_json_has_the_same_and_the_logger_in_one_object() -> None:
    line = Lines("worker", LogFormat.JSON, {"worker": "w1"}).format(
        record("%s: started", "digits", trial=17, study="a b")
    )
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.123Z",
        "level": "INFO",
        "process": "worker",
        "pid": 77,
        "logger": "workers.agent",
        "message": "digits: started",
        "study": "a b",
        "trial": 17,
        "worker": "w1",
    }


def test_an_id_of_the_line_goes_before_the_processs_own() -> None:
    line = Lines("web", LogFormat.JSON, {"worker": "w1"}).format(record(worker="w2"))
    assert json.loads(line)["worker"] == "w2"


@given(st.text(), st.text())
def test_nothing_that_is_logged_begins_a_line_or_steers_a_terminal(message: str, study: str) -> None:
    text = Lines("web", LogFormat.TEXT).format(record("%s", message, study=study))
    assert text.isprintable()
    line = Lines("web", LogFormat.JSON).format(record("%s", message, study=study))
    assert line.isprintable()
    assert line.isascii()
    assert (json.loads(line)["message"], json.loads(line)["study"]) == (message, study)


def test_a_name_that_looks_like_a_line_stays_a_name() -> None:
    line = Lines("web", LogFormat.TEXT).format(record("no task %s", FORGED))
    assert line.endswith(r"no task x\n2026-09-21T14:13:20.123Z web ERROR all is lost \x1b[2J\r\u2028\x85 \u202e")


def test_a_traceback_follows_a_line_of_text_indented_and_is_within_one_of_json() -> None:
    first, *rest = Lines("web", LogFormat.TEXT).format(failed()).split("\n")
    assert first == "2026-09-21T14:13:20.123Z web INFO cannot"
    assert rest[0] == "  | Traceback (most recent call last):"
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    line = Lines("web", LogFormat.JSON).format(failed())
    assert line.isprintable()
    assert FORGED in json.loads(line)["traceback"]


def test_an_error_that_ends_a_process_is_a_line_too() -> None:
    program = "from studies.logs import *; log_to_stderr('web', LogFormat.JSON, trial=3); 1 / 0"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert json.loads(line)["level"] == "CRITICAL"
    assert json.loads(line)["trial"] == 3
    assert "ZeroDivisionError" in json.loads(line)["traceback"]


def test_the_form_comes_from_the_environment() -> None:
    assert format_from_environment({}) is LogFormat.TEXT
    assert format_from_environment({"LR_ARENA_LOG_FORMAT": ""}) is LogFormat.TEXT
    assert format_from_environment({"LR_ARENA_LOG_FORMAT": "json"}) is LogFormat.JSON
    with pytest.raises(ArenaError, match="LR_ARENA_LOG_FORMAT must be text or json, but got 'xml'"):
        format_from_environment({"LR_ARENA_LOG_FORMAT": "xml"})


def test_no_id_has_a_name_that_a_record_uses_itself() -> None:
    assert not set(IDS) & vars(record()).keys()
