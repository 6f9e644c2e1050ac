"""The log of `lr-arena worker`, the real command over a training process without Keras."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.workers.service_double import ServiceDouble, assignment

REPOSITORY = Path(__file__).parents[2]
FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")

START = """
import functools, sys
from arena_cli.app import app
from workers import agent
agent.run_agent = functools.partial(agent.run_agent, trainer_command=[sys.executable, sys.argv[1]])
app(["worker", "--server", sys.argv[2], "--log-format", "json"])
"""


def test_every_line_names_the_worker_and_those_about_a_trial_its_study_and_attempt() -> None:
    service = ServiceDouble()
    service.start()
    forged = "study\nworker=somebody-else"
    trial = assignment("quick").model_copy(update={"study": forged})
    service.offer(trial)
    command = [sys.executable, "-c", START, str(FAKE_TRAINER), service.url]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        try:
            service.wait_for(lambda: service.results, seconds=30)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
            service.stop()
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {(line["process"], line["worker"]) for line in lines} == {("worker", service.claims[0].worker.id)}
    about = [line for line in lines if "trial" in line]
    ids = (forged, trial.trial_id, trial.attempt)
    assert [(line["study"], line["trial"], line["attempt"]) for line in about] == [ids, ids]
    assert [line["message"].partition(": ")[2].partition(",")[0] for line in about] == [
        "started (attempt 1)",
        "completed",
    ]
