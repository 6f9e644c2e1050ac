"""The whole road with nothing left out: POST, service, director, agent, Keras, results, leaderboard."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studies.client import Client
from studies.protocol import EpochView, TrialView
from tests.end_to_end.conftest import NOT_IN_A_WORKER, NOT_IN_THE_SERVICE, run_to_end, without

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 5, 4  # 64 examples in batches of 16
ETA = 0.05

# Each schedule at fixed parameters, and its formula: (step after the warm-up, steps after it, epochs after it) -> rate.
Formula = Callable[[int, int, int], float]
OPEN_LOOP: dict[str, tuple[dict[str, object], Formula]] = {
    "constant": ({}, lambda s, t, e: ETA),
    "step": ({"factor": 0.5, "drops": 2}, lambda s, t, e: ETA * 0.5 ** math.floor((s // STEPS) / (e / 3))),
    "exponential": ({"final_ratio": 0.01, "stairs": 0}, lambda s, t, e: ETA * 0.01 ** (s / t)),
    "inverse_time": ({"kappa": 9.0, "stairs": 4}, lambda s, t, e: ETA / (1 + 9.0 * math.floor(s / (t / 4)) / 4)),
    "polynomial": ({"power": 3.0, "alpha": 0.1}, lambda s, t, e: (ETA - 0.1 * ETA) * (1 - s / t) ** 3 + 0.1 * ETA),
    "linear": ({"alpha": 0.0}, lambda s, t, e: ETA * (t - s) / t),
    "cosine": ({"alpha": 0.04}, lambda s, t, e: ETA * (0.96 * (1 + math.cos(math.pi * s / t)) / 2 + 0.04)),
    "cosine_restarts": (
        {"cycles": 2, "t_mul": 1.5, "m_mul": 0.5, "alpha": 0.0},
        lambda s, t, e: (
            ETA * (1 + math.cos(math.pi * s / (t / 2.5))) / 2
            if s < t / 2.5
            else 0.5 * ETA * (1 + math.cos(math.pi * (s - t / 2.5) / (1.5 * t / 2.5))) / 2
        ),
    ),
}


def with_warmup(formula: Formula, step: int, warmup_epochs: int) -> float:
    w = warmup_epochs * STEPS
    if step < w:
        return ETA * (step + 1) / w
    return formula(step - w, EPOCHS * STEPS - w, EPOCHS - warmup_epochs)


def trials(client: Client, study: str, phase: str) -> dict[str, TrialView]:
    return {trial.schedule or "": trial for trial in client.trials(study) if trial.phase == phase}


@pytest.mark.parametrize("modules", [NOT_IN_THE_SERVICE, NOT_IN_A_WORKER], ids=["service", "worker"])
def test_service_and_worker_of_these_tests_run_without_the_packages_of_the_other(
    modules: list[str], tmp_path: Path
) -> None:
    """The environments that the fixture `arena` starts them in really lack those packages."""
    environment = without(modules, tmp_path / "absent")
    for module in modules:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("warmup_epochs", [0, 1])
def test_rates_as_applied_equal_the_formula_of_every_open_loop_schedule(arena: Client, warmup_epochs: int) -> None:
    name = run_to_end(
        arena,
        {
            "name": f"open-loop-{warmup_epochs}",
            "tasks": ["tiny-line"],
            "schedules": [{"type": schedule, **fixed} for schedule, (fixed, _) in OPEN_LOOP.items()],
            "learning_rate": ETA,
            "warmup": warmup_epochs / EPOCHS,
            "batch_size": 16,
            "epochs": EPOCHS,
            "search": {"trials_per_schedule": 1, "sampler": "random"},
            "confirm": {"seeds": 0},
        },
    )
    run = trials(arena, name, "search")
    assert set(run) == set(OPEN_LOOP)
    for schedule, (_, formula) in OPEN_LOOP.items():
        stored = list(arena.epochs(run[schedule].id))
        assert len(stored) == EPOCHS
        for epoch in stored:
            first = with_warmup(formula, epoch.epoch * STEPS, warmup_epochs)
            last = with_warmup(formula, epoch.epoch * STEPS + STEPS - 1, warmup_epochs)
            applied = np.array([epoch.lr_first, epoch.lr_last])
            np.testing.assert_allclose(applied, [first, last], rtol=1.2e-7, atol=1e-9, err_msg=f"{schedule} {epoch}")


def plateau_rates(epochs: list[EpochView], *, factor: float, patience: int, floor: float, revert: bool) -> list[float]:
    """The rule of the two plateau schedules once more, on the metrics that were reported."""
    rate, best, wait, rates = ETA, math.inf, 0, []
    for epoch in epochs:
        rates.append(rate)
        loss = epoch.metrics["val_loss"]
        assert loss is not None
        if loss < best - 0.01:
            best, wait = loss, 0
        else:
            wait += 1
        if wait >= patience and (revert or rate > floor):
            wait = 0
            rate = ETA if revert and rate * factor < floor else max(rate * factor, floor)
    return rates


def test_rates_of_the_plateau_schedules_follow_the_metrics_that_were_reported(arena: Client) -> None:
    shape = {"monitor": "val_loss", "factor": 0.5, "patience": 2, "min_delta": 0.01, "cooldown": 0, "min_lr": 0.01}
    name = run_to_end(
        arena,
        {
            "name": "closed-loop",
            "tasks": ["tiny-line"],
            "schedules": [
                {"type": "reduce_on_plateau", **shape},
                {"type": "plateau_with_revert", "min_ratio": 0.0, **shape},
            ],
            "learning_rate": ETA,
            "batch_size": 16,
            "epochs": 40,
            "search": {"trials_per_schedule": 1, "sampler": "random"},
            "confirm": {"seeds": 0},
        },
    )
    run = trials(arena, name, "search")
    for schedule, revert in (("reduce_on_plateau", False), ("plateau_with_revert", True)):
        stored = list(arena.epochs(run[schedule].id))
        expected = plateau_rates(stored, factor=0.5, patience=2, floor=0.01, revert=revert)
        assert len(set(expected)) > 2
        assert [e.lr_first for e in stored] == pytest.approx(expected, rel=1e-6)
        assert [e.lr_last for e in stored] == pytest.approx(expected, rel=1e-6)


def test_a_study_ends_with_a_leaderboard_of_real_results(arena: Client) -> None:
    name = run_to_end(
        arena,
        {
            "name": "digits",
            "tasks": ["digits-mlp"],
            "schedules": ["constant", "linear"],
            "learning_rate": {"low": 0.02, "high": 0.3, "log": True},
            "epochs": 8,
            "batch_size": 32,
            "search": {"trials_per_schedule": 2, "sampler": "tpe"},
            "confirm": {"seeds": 2},
        },
    )
    board = arena.leaderboard(study=name).boards[0]
    assert (board.metric, board.provisional) == ("val_accuracy", False)
    assert [(entry.seeds, entry.completed) for entry in board.entries] == [(2, 4), (2, 4)]
    assert board.entries[0].rank == 1
    assert all(entry.mean is not None and 0.85 < entry.mean <= 1.0 for entry in board.entries)
    by_hand: dict[str, list[float]] = {}
    for trial in arena.trials(name):
        if trial.phase == "confirm":
            assert trial.test_best is not None
            by_hand.setdefault(trial.schedule or "", []).append(trial.test_best["accuracy"] or 0.0)
    for entry in board.entries:
        assert entry.mean == pytest.approx(np.mean(by_hand[entry.schedule]))


def test_the_same_definition_gives_the_same_results_again(arena: Client) -> None:
    body: dict[str, object] = {
        "tasks": ["digits-mlp"],
        "schedules": ["cosine"],
        "epochs": 3,
        "search": {"trials_per_schedule": 2, "sampler": "qmc", "seed": 5},
        "confirm": {"seeds": 1},
    }
    results = []
    for name in ("once", "again"):
        run_to_end(arena, {"name": name, **body})
        results.append(
            [
                (
                    trial.seed,
                    trial.configuration,
                    [(e.metrics, e.lr_last) for e in arena.epochs(trial.id)],
                    trial.test_best,
                )
                for trial in arena.trials(name)
            ]
        )
    assert results[0] == results[1]
