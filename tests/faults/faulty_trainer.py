"""A training process without Keras, with points to die at; it writes down what it has run."""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path

from studies.protocol import Assignment, EpochRecord
from studies.range_test import RangeCurve
from studies.tasks import BUILT_IN_TASKS
from tests.faults.bombs import pass_point
from workers.pipe import AGENT_MESSAGES, Abandon, AgentMessage, Dropped, Ended, Epoch, Hello, Pipe, Quit, Train

LOG = "ARENA_TEST_LOG"
EPOCH_SECONDS = 0.01
RATES = [10.0 ** (n / 10 - 6) for n in range(70)]
LOSSES: list[float | None] = [1.0 / (1.0 + 100.0 * rate) + rate**2 for rate in RATES]
CURVE = RangeCurve(rates=RATES, losses=LOSSES, smoothed=LOSSES)


def note(event: str, trial: Assignment) -> None:
    line = json.dumps({"event": event, "trial": trial.trial_id, "token": trial.token, "at": time.monotonic()})
    with Path(os.environ[LOG]).open("a") as log:
        log.write(line + "\n")


def main() -> None:
    pipe = Pipe(socket.socket(fileno=int(sys.argv[1])))
    commands: queue.SimpleQueue[AgentMessage] = queue.SimpleQueue()

    def listen() -> None:
        for line in pipe.lines():
            commands.put(AGENT_MESSAGES.validate_json(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    task = BUILT_IN_TASKS["digits-mlp"].model_copy(update={"fingerprint": "f"})
    pipe.send(Hello(tasks=[task], unavailable={}, backend="none", versions={}))
    while not isinstance(command := commands.get(), Quit):
        if isinstance(command, Train):
            run(pipe, command.assignment, commands)


def run(pipe: Pipe, trial: Assignment, commands: queue.SimpleQueue[AgentMessage]) -> None:
    def point(name: str) -> None:
        if trial.attempt <= 2:  # three crashes would be the end of the trial
            pass_point(name)

    note("started", trial)
    point("trainer-at-start")
    if trial.phase == "range_test":
        time.sleep(10 * EPOCH_SECONDS)
        point("trainer-before-the-result")
        note("ended", trial)
        pipe.send(Ended(token=trial.token, outcome="completed", train_seconds=0.1, range_curve=CURVE))
        point("trainer-after-the-result")
        return
    rate = trial.configuration.learning_rate
    for epoch in range(trial.epochs):
        time.sleep(EPOCH_SECONDS)
        record = EpochRecord(
            epoch=epoch,
            metrics={"loss": 1.0, trial.metric: 0.9 - 0.1 * rate + epoch / 1000},
            lr_first=rate,
            lr_last=rate,
            seconds=EPOCH_SECONDS,
        )
        pipe.send(Epoch(token=trial.token, record=record))
        if epoch == 1:
            point("trainer-in-the-middle")
        try:
            command = commands.get_nowait()
        except queue.Empty:
            continue
        if isinstance(command, Abandon):
            note("dropped", trial)
            pipe.send(Dropped(token=trial.token))
            return
    point("trainer-before-the-result")
    note("ended", trial)
    scores: dict[str, float | None] = {"loss": 1.0, "accuracy": 0.9 - 0.1 * rate}
    test = scores if trial.score_on_test else None
    pipe.send(Ended(token=trial.token, outcome="completed", train_seconds=0.1, test_best=test, test_last=test))
    point("trainer-after-the-result")


if __name__ == "__main__":
    main()
