"""The training process itself, with Keras, spoken to as the agent does; one for all tests here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import keras
import pytest

from tests.workers.problems import trial
from workers.agent import TRAINER_COMMAND
from workers.pipe import Abandon, Dropped, Ended, Epoch, Hello, Quit, Raised, Stop, Train, TrainerMessage
from workers.process import TrainingProcess
from workers.tasks import load
from workers.tasks.fingerprint import fingerprint

TASKS = """
import keras, numpy as np
from lr_arena import Problem, task

data = np.zeros((64, 1)), np.zeros((64, 1))

def model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

@task("zeros", metric="val_loss", direction="minimize")
def zeros():
    return Problem(data, data, data, model=model, loss="mse")

@task("raises", metric="val_loss", direction="minimize")
def raises():
    def loss(target, output):
        raise ArithmeticError("this loss is no good")
    return Problem(data, data, data, model=model, loss=loss)

@task("cannot-be-made", metric="val_loss", direction="minimize")
def cannot_be_made():
    return {}["no such key"]
"""

Kind = TypeVar("Kind", bound=TrainerMessage)


class Trainer:
    def __init__(self, *tasks: str) -> None:
        self.process = TrainingProcess(TRAINER_COMMAND, tasks)
        self.messages = self.process.messages()
        self.epochs: list[Epoch] = []

    def next(self, kind: type[Kind]) -> Kind:
        """The next message that is not an epoch; the epochs before it are kept."""
        self.epochs = []
        for message in self.messages:
            if isinstance(message, Epoch):
                self.epochs.append(message)
                continue
            assert isinstance(message, kind), message
            return message
        raise AssertionError(f"{self.process.how_it_died()}: {self.process.log_end()}")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    tasks = tmp_path_factory.mktemp("tasks") / "tasks.py"
    tasks.write_text(TASKS)
    trainer = Trainer(str(tasks))
    yield trainer
    trainer.process.close()


@pytest.fixture(scope="module")
def hello(trainer: Trainer) -> Hello:
    return trainer.next(Hello)


def test_it_announces_its_tasks_with_the_fingerprints_of_any_process(hello: Hello) -> None:
    announced = {manifest.name: manifest.fingerprint for manifest in hello.tasks}
    assert {"digits-mlp", "digits-cnn", "diabetes-mlp", "zeros", "raises"} <= set(announced)
    digits = load()["digits-cnn"]()
    assert announced["digits-cnn"] == fingerprint(digits)
    assert hello.backend == keras.backend.backend()
    assert hello.versions["keras"] == keras.__version__
    assert hello.versions[hello.backend]


def test_it_tells_which_tasks_it_cannot_run_and_why(hello: Hello) -> None:
    assert "put mnist.npz" in hello.unavailable["mnist-cnn"]
    assert hello.unavailable["cannot-be-made"].startswith("KeyError: 'no such key' (line ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_for_the_agent_to_answer(trainer: Trainer, hello: Hello, number: signal.Signals) -> None:
    os.kill(trainer.process.pid, number)
    trainer.process.send(Train(assignment=trial(task="zeros", epochs=1, token=number.name)))
    assert trainer.next(Ended).token == number.name


def test_it_trains_trial_after_trial(trainer: Trainer, hello: Hello) -> None:
    for token in ("first", "second"):
        trainer.process.send(Train(assignment=trial(task="zeros", epochs=3, token=token, score_on_test=True)))
        ended = trainer.next(Ended)
        assert (ended.token, ended.outcome) == (token, "completed")
        assert ended.test_best == ended.test_last
        assert ended.steps_per_epoch == 7  # 64 examples in batches of 10
        assert [(epoch.token, epoch.record.epoch) for epoch in trainer.epochs] == [(token, n) for n in range(3)]


def test_it_sweeps_the_rates_for_a_range_test(trainer: Trainer, hello: Hello) -> None:
    assignment = trial(task="zeros", token="sweep").model_copy(update={"phase": "range_test"})
    trainer.process.send(Train(assignment=assignment))
    ended = trainer.next(Ended)
    assert (ended.token, ended.outcome, ended.test_best, trainer.epochs) == ("sweep", "completed", None, [])
    assert ended.range_curve is not None
    assert len(ended.range_curve.rates) == len(ended.range_curve.losses) > 10
    assert ended.train_seconds > 0


def test_a_range_test_told_to_stop_or_dropped_has_no_curve(trainer: Trainer, hello: Hello) -> None:
    for token, order in (("stopped", Stop(token="stopped")), ("unwanted-sweep", Abandon(token="unwanted-sweep"))):
        assignment = trial(task="zeros", token=token).model_copy(update={"phase": "range_test"})
        trainer.process.send(Train(assignment=assignment))
        trainer.process.send(order)
        ended = trainer.next(Ended) if token == "stopped" else trainer.next(Dropped)
        assert ended.token == token
        assert not isinstance(ended, Ended) or (ended.outcome, ended.range_curve) == ("pruned", None)


def test_a_run_told_to_stop_ends_as_pruned(trainer: Trainer, hello: Hello) -> None:
    trainer.process.send(Train(assignment=trial(task="zeros", epochs=100_000, token="long")))
    trainer.process.send(Stop(token="another"))
    trainer.process.send(Stop(token="long"))
    assert trainer.next(Ended).outcome == "pruned"


def test_an_abandoned_run_is_dropped(trainer: Trainer, hello: Hello) -> None:
    trainer.process.send(Train(assignment=trial(task="zeros", epochs=100_000, token="unwanted")))
    trainer.process.send(Abandon(token="unwanted"))
    assert trainer.next(Dropped).token == "unwanted"


def test_an_exception_in_a_task_leaves_the_process_alive(trainer: Trainer, hello: Hello) -> None:
    trainer.process.send(Train(assignment=trial(task="raises", token="bad")))
    raised = trainer.next(Raised)
    assert "this loss is no good" in raised.reason
    assert "ArithmeticError" in raised.traceback
    assert "in loss" in raised.traceback


def test_a_task_that_refuses_is_a_failed_trial(trainer: Trainer, hello: Hello) -> None:
    trainer.process.send(Train(assignment=trial(task="zeros", metric="val_auc", token="refused")))
    ended = trainer.next(Ended)
    assert ended.outcome == "failed"
    assert "it reports: loss, val_loss" in ended.reason


def test_it_quits_in_the_middle_of_a_run(trainer: Trainer, hello: Hello) -> None:
    trainer.process.send(Train(assignment=trial(task="zeros", epochs=100_000, token="last")))
    trainer.process.send(Quit())
    assert trainer.next(Dropped).token == "last"
    assert list(trainer.messages) == []
    assert trainer.process.how_it_died() == "the training process exited with code 0"


def test_it_ends_with_the_agent_even_while_it_loads_keras() -> None:
    process = TrainingProcess(TRAINER_COMMAND, ())
    process._ours.close()
    exit_code = process._process.wait(timeout=10.0)
    process.close()
    assert exit_code == 0


def test_a_folder_called_workers_in_the_current_one_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise RuntimeError('not this one')")
    started = subprocess.run(
        [*TRAINER_COMMAND, "not-a-descriptor"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ValueError" in started.stderr
    assert "not this one" not in started.stderr
