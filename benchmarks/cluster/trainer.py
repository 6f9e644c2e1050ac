"""A training process without Keras: sleeps through its epochs, and writes down what came of them.

The value of an epoch is a hash of the lease's token and the epoch, so that a stored value tells which attempt it is of.
"""

from __future__ import annotations

import hashlib
import os
import queue
import random
import socket
import sys
import threading
from pathlib import Path

from benchmarks.cluster.notes import Notes
from studies.protocol import Assignment, EpochRecord
from studies.tasks import BUILT_IN_TASKS
from workers.pipe import AGENT_MESSAGES, Abandon, AgentMessage, Dropped, Ended, Epoch, Hello, Pipe, Quit, Stop, Train

NOTES = "ARENA_BENCHMARK_NOTES"
EPOCH_SECONDS = "ARENA_BENCHMARK_EPOCH_SECONDS"
TASK = "digits-mlp"


def value_of(token: str, epoch: int) -> float:
    """What an epoch is worth; in [0, 1), and different for every attempt and epoch."""
    digest = hashlib.sha256(f"{token} {epoch}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def main(fd: str) -> None:
    """Train one trial after another until told to quit, or until the agent is gone."""
    pipe = Pipe(socket.socket(fileno=int(fd)))
    notes = Notes(Path(os.environ[NOTES]))
    mean = float(os.environ[EPOCH_SECONDS])
    commands: queue.SimpleQueue[AgentMessage] = queue.SimpleQueue()

    def listen() -> None:
        for line in pipe.lines():
            commands.put(AGENT_MESSAGES.validate_json(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    task = BUILT_IN_TASKS[TASK].model_copy(update={"fingerprint": "f"})
    pipe.send(Hello(tasks=[task], unavailable={}, backend="none", versions={}))
    while not isinstance(command := commands.get(), Quit):
        if isinstance(command, Train) and _quits_after(pipe, notes, command.assignment, commands, mean):
            return


def _quits_after(
    pipe: Pipe, notes: Notes, trial: Assignment, commands: queue.SimpleQueue[AgentMessage], mean: float
) -> bool:
    """Run a trial; whether the process was told to quit meanwhile."""
    seconds = random.Random(trial.token).uniform(0.2, 1.8) * mean
    notes.write("started", trial=trial.trial_id, token=trial.token)
    for epoch in range(trial.epochs):
        try:
            command = commands.get(timeout=seconds)
        except queue.Empty:
            value = value_of(trial.token, epoch)
            notes.write("epoch", trial=trial.trial_id, token=trial.token, epoch=epoch, value=value)
            rate = trial.configuration.learning_rate
            record = EpochRecord(
                epoch=epoch, metrics={trial.metric: value}, lr_first=rate, lr_last=rate, seconds=seconds
            )
            pipe.send(Epoch(token=trial.token, record=record))
            continue
        if isinstance(command, Stop | Abandon | Quit):
            notes.write("dropped", trial=trial.trial_id, token=trial.token)
            pipe.send(Dropped(token=trial.token))
            return isinstance(command, Quit)
    notes.write("ended", trial=trial.trial_id, token=trial.token)
    scores: dict[str, float | None] | None = {"loss": 1.0, "accuracy": 0.5} if trial.score_on_test else None
    train_seconds = seconds * trial.epochs
    pipe.send(
        Ended(token=trial.token, outcome="completed", train_seconds=train_seconds, test_best=scores, test_last=scores)
    )
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
