"""A trial's states, the bounds on its attempts, and which of its epochs counts."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from studies.tasks import BUILT_IN_TASKS, Direction
from studies.trial import (
    MAX_CRASHES,
    MAX_LOSSES,
    OPEN,
    TERMINAL,
    TRANSITIONS,
    AttemptCounts,
    Score,
    TrialState,
    is_better,
    score,
)

NAN, INF = math.nan, math.inf

# --- states

ALLOWED = {
    ("planned", "ready"),
    ("planned", "cancelled"),
    ("ready", "running"),
    ("ready", "cancelled"),
    ("running", "ready"),
    ("running", "completed"),
    ("running", "pruned"),
    ("running", "diverged"),
    ("running", "failed"),
    ("running", "cancelled"),
}


@pytest.mark.parametrize(("before", "after"), list(product(TrialState, TrialState)))
def test_transition_is_allowed_where_the_table_says(before: TrialState, after: TrialState) -> None:
    assert (after in TRANSITIONS[before]) == ((before.value, after.value) in ALLOWED)


def test_every_state_has_its_row_and_can_be_reached_from_planned() -> None:
    assert set(TRANSITIONS) == set(TrialState)
    reached, fresh = {TrialState.PLANNED}, {TrialState.PLANNED}
    while fresh:
        fresh = {after for before in fresh for after in TRANSITIONS[before]} - reached
        reached |= fresh
    assert reached == set(TrialState)


def test_terminal_states_are_never_left_and_every_open_state_leads_to_one() -> None:
    assert {state.value for state in TERMINAL} == {"completed", "pruned", "diverged", "failed", "cancelled"}
    assert {state.value for state in OPEN} == {"planned", "ready", "running"}
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert all(TRANSITIONS[state] & TERMINAL for state in OPEN)


# --- attempts


@pytest.mark.parametrize(
    ("crashed", "lost", "preempted", "expected"),
    [
        (0, 0, 0, "ready"),
        (2, 0, 0, "ready"),
        (3, 0, 0, "failed"),
        (4, 0, 0, "failed"),
        (0, 19, 0, "ready"),
        (0, 20, 0, "failed"),
        (2, 19, 0, "ready"),
        (2, 19, 1_000_000, "ready"),
        (3, 20, 0, "failed"),
    ],
)
def test_trial_fails_after_three_crashes_or_twenty_losses_and_preemptions_are_free(
    crashed: int, lost: int, preempted: int, expected: str
) -> None:
    assert (MAX_CRASHES, MAX_LOSSES) == (3, 20)
    assert AttemptCounts(crashed=crashed, lost=lost, preempted=preempted).verdict() == expected


# --- which epoch counts


def test_best_epoch_is_the_first_of_equals() -> None:
    values = [(0, 0.5), (1, 0.9), (2, 0.7), (3, 0.9)]
    assert score(values, "maximize") == Score(best_epoch=1, best=0.9, last_epoch=3, last=0.9)
    assert score(values, "minimize") == Score(best_epoch=0, best=0.5, last_epoch=3, last=0.9)


@pytest.mark.parametrize("missing", [None, NAN, INF, -INF])
def test_value_that_is_no_number_is_never_the_best_nor_the_last(missing: float | None) -> None:
    for direction in ("maximize", "minimize"):
        assert score([(0, missing)], direction) == Score(None, None, 0, None)
        assert score([(0, missing), (1, 0.5), (2, missing)], direction) == Score(1, 0.5, 2, None)


def test_run_without_epochs_has_no_score() -> None:
    assert score([], "maximize") == Score(None, None, None, None)


def test_epochs_are_named_by_their_own_numbers() -> None:
    assert score([(5, 0.1), (7, 0.2)], "maximize") == Score(7, 0.2, 7, 0.2)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_score_equals_numpys_first_extreme_on_random_runs(direction: Direction) -> None:
    rng = random.Random(3)
    for _ in range(300):
        values = [rng.choice([None, NAN, INF, -INF, *[round(rng.random(), 1)] * 8]) for _ in range(rng.randint(1, 15))]
        array = np.array([NAN if value is None or not math.isfinite(value) else value for value in values])
        found = score(list(enumerate(values)), direction)
        if np.all(np.isnan(array)):
            assert (found.best_epoch, found.best) == (None, None)
        else:
            expected = int(np.nanargmax(array) if direction == "maximize" else np.nanargmin(array))
            assert (found.best_epoch, found.best) == (expected, array[expected])
        assert found.last_epoch == len(values) - 1
        assert found.last == (None if np.isnan(array[-1]) else array[-1])


@pytest.mark.parametrize(
    ("value", "other", "direction", "expected"),
    [
        (2.0, 1.0, "maximize", True),
        (1.0, 1.0, "maximize", False),
        (1.0, 2.0, "maximize", False),
        (1.0, 2.0, "minimize", True),
        (1.0, 1.0, "minimize", False),
        (NAN, 1.0, "maximize", False),
        (NAN, 1.0, "minimize", False),
    ],
)
def test_better_is_strictly_better(value: float, other: float, direction: Direction, expected: bool) -> None:
    assert is_better(value, other, direction) is expected


# --- the tasks that everybody has


def test_built_in_tasks_are_those_of_the_readme() -> None:
    assert list(BUILT_IN_TASKS) == [
        "digits-mlp",
        "digits-cnn",
        "breast-cancer-mlp",
        "wine-mlp",
        "diabetes-mlp",
        "mnist-cnn",
        "fashion-mnist-cnn",
        "fashion-mnist-cnn-4k",
        "cifar10-resnet",
        "cifar10-tutorial-resnet",
    ]
    for name, manifest in BUILT_IN_TASKS.items():
        assert manifest.name == name
        regression = manifest.classes is None
        assert (manifest.metric, manifest.direction) == (
            ("val_loss", "minimize") if regression else ("val_accuracy", "maximize")
        )
        assert regression == (name == "diabetes-mlp")
        assert manifest.fingerprint is None
