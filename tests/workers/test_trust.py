"""What a worker does not pass on: its token to the tasks that it runs, and text that no database can keep."""

from __future__ import annotations

import sys

from studies.protocol import TrialRelease
from workers.gpus import Place, environment
from workers.pipe import TRAINER_MESSAGES, Raised
from workers.process import TrainingProcess

NOISE = "import sys; sys.stdout.buffer.write(b'a' + bytes(1) + b'b\\xff\\n')"


def test_a_training_process_does_not_know_its_workers_token() -> None:
    passed = environment(Place(), {"LR_ARENA_TOKEN": "lra_secret", "HOME": "/home/ada"})
    assert "LR_ARENA_TOKEN" not in passed
    assert passed["HOME"] == "/home/ada"


def test_a_log_with_any_bytes_can_be_sent() -> None:
    process = TrainingProcess((sys.executable, "-c", NOISE), ())
    assert list(process.messages()) == []
    log_end = process.log_end()
    process.close()
    assert log_end == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}\n"
    TrialRelease(trial_id=1, token="t", cause="crashed", reason="", log_end=log_end)


def test_an_error_with_any_characters_can_be_told() -> None:
    raised = Raised(token="t", reason="half a pair \ud800", traceback="a NUL \0")
    again = TRAINER_MESSAGES.validate_json(raised.model_dump_json())
    assert isinstance(again, Raised)
    assert (again.reason[-1], again.traceback[-1]) == ("\N{REPLACEMENT CHARACTER}",) * 2
