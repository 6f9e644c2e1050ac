"""What the web process logs of studies and trials."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from service import journal
from studies.logs import IDS, Lines, LogFormat
from tests.service.support import Service, Worker


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The journal as a program reads it, without what every line of a log has."""
    form = Lines("web", LogFormat.JSON)
    lines = [json.loads(form.format(record)) for record in caplog.records if record.name == journal.__name__]
    return [{name: line[name] for name in line if name in ("level", "message", *IDS)} for line in lines]


def test_the_log_tells_of_a_study_and_its_trials_with_the_ids_of_all_concerned(
    service: Service, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, journal.__name__)
    service.submit(name="mine")
    service.submit(name="mine")
    first = worker.next(service)
    worker.release(first, "crashed", reason="killed by SIGSEGV")
    again = worker.next(service)
    worker.finish(again)
    worker.finish(first)
    service.client.pause("mine")

    of_worker = {"worker": "worker-1"}
    leased = {"level": "INFO", "message": "handed out to worker-1", "study": "mine", **of_worker}
    lines = told(caplog)
    assert [line.pop("request") for line in lines if "request" in line] == ["worker-1-1", "worker-1-2"]
    refusal = lines[-2].pop("message")
    assert lines == [
        {"level": "INFO", "message": "created", "study": "mine"},
        {**leased, "trial": first.trial_id, "attempt": 1},
        {"level": "INFO", "message": "crashed: killed by SIGSEGV", "trial": first.trial_id, **of_worker},
        {**leased, "trial": again.trial_id, "attempt": again.attempt},
        {"level": "INFO", "message": "completed", "trial": again.trial_id, **of_worker},
        {"level": "WARNING", "trial": first.trial_id, **of_worker},
        {"level": "INFO", "message": "paused", "study": "mine"},
    ]
    assert refusal.startswith("refused, ")
    assert refusal.endswith(" (completed)")
