"""Declaring tasks, loading them, and telling them apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from studies.errors import DataMissing, TaskError, TaskFileError
from studies.tasks import BUILT_IN_TASKS
from tests.workers.problems import line, run, trial
from workers.tasks import Problem, load, split, task
from workers.tasks.fingerprint import fingerprint
from workers.tasks.images import resnet20

REPOSITORY = Path(__file__).parents[2]

TASK = """
from lr_arena import Problem, task

@task("{name}", metric="val_loss", direction="minimize")
def made() -> Problem:
    raise RuntimeError("not needed yet")
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, name: str = "my_tasks.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


# --- loading


def test_the_built_in_tasks_are_those_that_were_promised() -> None:
    assert {name: item.manifest for name, item in load().items()} == BUILT_IN_TASKS


def test_the_example_of_a_users_task_runs_as_it_is() -> None:
    iris = load([str(REPOSITORY / "studies" / "examples" / "iris_task.py")])["iris-mlp"]
    problem = iris()
    assignment = trial(epochs=2, task="iris-mlp", metric="val_accuracy", direction="maximize", score_on_test=True)
    end, epochs = run(assignment, problem)
    assert end is not None
    assert end.outcome == "completed"
    assert len(epochs) == 2
    assert set(end.test_last or {}) == {"loss", "accuracy"}


def test_a_tasks_function_does_not_run_before_it_is_needed(write: Callable[..., str]) -> None:
    mine = load([write(TASK.format(name="mine"))])["mine"]
    with pytest.raises(RuntimeError, match="not needed yet"):
        mine()


def test_a_task_file_may_have_the_name_of_a_library(write: Callable[..., str]) -> None:
    spec = write(TASK.format(name="mine"), "keras.py")
    assert "mine" in load([spec])
    assert sys.modules["keras"] is keras


def test_a_task_may_come_from_a_module(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Path(write(TASK.format(name="mine"), "module_with_tasks.py"))
    monkeypatch.syspath_prepend(str(spec.parent))
    assert "mine" in load(["module_with_tasks"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def broken(:\n", r"not valid Python: .*line 1"),
        ("x = 1\n", r"neither a task nor a schedule in it; decorate a function with @task"),
        (
            "import no_such_library\n",
            r"ModuleNotFoundError: No module named 'no_such_library' \(line 1 of .*my_tasks.py",
        ),
        (TASK.format(name="digits-mlp"), r"already a task 'digits-mlp' in the built-in tasks; rename it"),
        (
            TASK.format(name="a") + TASK.format(name="a").replace("made", "made_again"),
            r"already a task 'a' in .*my_tasks",
        ),
        (TASK.format(name="no/slash"), r"task 'no/slash': name: .*\(got 'no/slash'\)"),
        (TASK.format(name="a").replace("val_loss", "loss"), r"task 'a': metric: .*\(got 'loss'\)"),
    ],
    ids=["syntax", "empty", "import", "clash", "duplicate", "name", "metric"],
)
def test_a_file_that_cannot_be_used_says_why(write: Callable[..., str], text: str, complaint: str) -> None:
    spec = write(text)
    with pytest.raises(TaskFileError, match=complaint) as caught:
        load([spec])
    assert str(caught.value).startswith(spec)


@pytest.mark.parametrize("spec", ["nowhere/tasks.py", "no_such_module"])
def test_what_is_not_there_is_named(spec: str) -> None:
    with pytest.raises(TaskFileError, match=f"{spec}.*(no such file|No module named)"):
        load([spec])


def test_a_task_must_return_a_problem() -> None:
    @task("odd", metric="val_loss", direction="minimize")
    def odd() -> Any:
        return 42

    with pytest.raises(TaskError, match=r"'odd' must return a Problem, but returned int"):
        odd()


# --- problems


def test_a_split_is_the_same_every_time_and_loses_nothing() -> None:
    x, y = np.arange(100), np.arange(100) % 5
    parts, again = (split(x, y, validation=0.1, test=0.3, seed=4, stratify=True) for _ in range(2))
    sizes = {name: len(part[0]) for name, part in parts.items()}  # type: ignore[index]
    assert sizes == {"train": 60, "validation": 10, "test": 30}
    rows = np.concatenate([parts["train"][0], parts["validation"][0], parts["test"][0]])
    assert sorted(rows) == list(range(100))
    assert (parts["test"][0] == again["test"][0]).all()
    assert (parts["test"][0] != split(x, y, validation=0.1, test=0.3, seed=5, stratify=True)["test"][0]).any()
    assert np.bincount(parts["test"][1]).tolist() == [6] * 5
    assert np.bincount(parts["validation"][1]).tolist() == [2] * 5


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.0, 0.2), (0.2, 1.2)])
def test_a_split_that_leaves_nothing_is_refused(validation: float, test: float) -> None:
    with pytest.raises(TaskError, match=f"got validation={validation}, test={test}"):
        split(np.arange(10), np.arange(10), validation=validation, test=test)


def test_arrays_of_different_lengths_are_refused() -> None:
    good = (np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(TaskError, match=r"validation: .* got \[4, 3\]"):
        Problem(good, (np.zeros((4, 1)), np.zeros(3)), good, model=lambda: None, loss="mse")
    with pytest.raises(TaskError, match=r"test must be \(x, y\).*got ndarray"):
        Problem(good, good, np.zeros(4), model=lambda: None, loss="mse")  # type: ignore[arg-type]


# --- fingerprints


def test_a_fingerprint_does_not_depend_on_what_was_built_before() -> None:
    digits = load()["digits-cnn"]
    assert fingerprint(digits()) == fingerprint(digits())


def changed(**changes: Any) -> Problem:
    simple = line()
    fields = {name: getattr(simple, name) for name in ("train", "validation", "test", "model", "loss", "metrics")}
    return Problem(**{**fields, **changes})


def wider_model() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    "changes",
    [
        {"train": (line().train[0] + 1e-6, line().train[1])},
        {"validation": line().test, "test": line().validation},
        {"model": wider_model},
        {"loss": "mean_absolute_error"},
        {"loss": keras.losses.Huber(0.5)},
        {"metrics": ["mae"]},
        {"metrics": [keras.metrics.MeanAbsoluteError()]},
    ],
    ids=["data", "split", "model", "loss", "loss object", "metrics", "metric object"],
)
def test_a_fingerprint_changes_with_the_problem(changes: dict[str, Any]) -> None:
    assert fingerprint(changed(**changes)) != fingerprint(line())
    assert fingerprint(changed(**changes)) == fingerprint(changed(**changes))


def test_functions_are_told_apart_by_name() -> None:
    def first(target: Any, output: Any) -> Any: ...

    def second(target: Any, output: Any) -> Any: ...

    assert fingerprint(changed(loss=first)) != fingerprint(changed(loss=second))


# --- data that must be fetched


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("LR_ARENA_DOWNLOAD", raising=False)
    monkeypatch.setenv("LR_ARENA_DATA", str(tmp_path))
    return tmp_path


IMAGE_TASKS = {
    "mnist-cnn": ("mnist", (28, 28), (28, 28, 1)),
    "fashion-mnist-cnn": ("fashion-mnist", (28, 28), (28, 28, 1)),
    "cifar10-resnet": ("cifar10", (32, 32, 3), (32, 32, 3)),
    "cifar10-tutorial-resnet": ("cifar10", (32, 32, 3), (32, 32, 3)),
}


@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_missing_data_says_where_to_put_what(no_data: Path, name: str) -> None:
    data = IMAGE_TASKS[name][0]
    with pytest.raises(
        DataMissing, match=rf"put {data}\.npz.*x_train.*keras/datasets.*LR_ARENA_DATA.*LR_ARENA_DOWNLOAD=1"
    ):
        load()[name]()


@pytest.mark.parametrize("folder", [".", "keras/datasets"])
@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_data_is_read_from_the_named_folder_or_that_of_keras(no_data: Path, name: str, folder: str) -> None:
    data, stored, seen = IMAGE_TASKS[name]
    labels = np.arange(100, dtype=np.uint8) % 10
    images = np.zeros((100, *stored), dtype=np.uint8)
    # CIFAR-10 comes with its labels in a column.
    column = labels[:, None] if data == "cifar10" else labels
    (no_data / folder).mkdir(parents=True, exist_ok=True)
    np.savez(no_data / folder / f"{data}.npz", x_train=images, y_train=column, x_test=images[:20], y_test=column[:20])
    problem = load()[name]()
    assert problem.train[0].shape == (90, *seen)
    assert problem.validation[0].shape == (10, *seen)
    assert sorted(problem.validation[1]) == list(range(10))
    assert problem.test[1].shape == (20,)
    assert problem.model()(problem.test[0][:2]).shape == (2, 10)


def test_the_small_fashion_task_takes_the_first_examples_of_each_class(no_data: Path) -> None:
    # 2,000 of each class, one class after another; an image's first two pixels say which row it is.
    rows = np.arange(20_000)
    images = np.zeros((20_000, 28, 28), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = rows // 256, rows % 256
    labels = (rows // 2000).astype(np.uint8)
    few = rows[::1000]
    data: dict[str, Any] = {"x_train": images, "y_train": labels, "x_test": images[few], "y_test": labels[few]}
    np.savez(no_data / "fashion-mnist.npz", **data)
    small, whole = (load()[name]() for name in ("fashion-mnist-cnn-4k", "fashion-mnist-cnn"))

    def seen(part: Any) -> list[int]:
        return [int(pixels[0]) * 256 + int(pixels[1]) for pixels in part[0][:, 0, :2, 0]]

    # The first tenth of each class, 200, is validated on.
    assert seen(small.validation) == [2000 * label + row for label in range(10) for row in range(100)]
    assert seen(small.train) == [2000 * label + row for label in range(10) for row in range(200, 600)]
    assert small.train[1].tolist() == [label for label in range(10) for _ in range(400)]
    assert seen(small.test) == seen(whole.test) == few.tolist()
    assert fingerprint(small) != fingerprint(whole)


def test_the_small_fashion_task_needs_enough_of_each_class(no_data: Path) -> None:
    labels = np.arange(100, dtype=np.uint8) % 10
    images = np.zeros((100, 28, 28), dtype=np.uint8)
    np.savez(no_data / "fashion-mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(TaskError, match=r"every class must have 400 examples, but one has 9"):
        load()["fashion-mnist-cnn-4k"]()


def test_a_data_file_without_an_array_is_refused(no_data: Path) -> None:
    np.savez(no_data / "mnist.npz", x_train=np.zeros(1))
    with pytest.raises(TaskError, match=r"mnist\.npz: there is no x_test, y_test, y_train; it holds x_train"):
        load()["mnist-cnn"]()


def test_resnet20_has_the_size_of_the_paper() -> None:
    # He et al. 2016, table 6: 0.27 M parameters.
    assert resnet20().count_params() == pytest.approx(270_000, rel=0.03)
