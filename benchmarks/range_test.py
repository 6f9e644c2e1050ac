"""Whether the range of a range test holds the best base rate, which an independent search finds.

For each task, optimizer and seed: one range test, as `learning_rate: auto` runs it, and one study of random
trials over the optimizer's default range, its base rates log-uniform, its schedules and their parameters those of a
study that names none. The best trial is the one with the best validation value of any epoch, the first of equals.
Beside the range of the test stand a range of the same width around Keras' default rate, and those that other
suggestions would have given.

The two share nothing but the task: rates, initial weights and orders of examples come from different seeds.

    .venv/bin/python -m benchmarks.range_test [--tasks digits-mlp diabetes-mlp] [--optimizers sgd] [--seeds 5]
        [--trials 64] [--epochs 20] [--processes 1] [--keep FOLDER]

With --keep the studies, which take minutes each, are stored in a folder and found there the next time.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.protocol import Assignment, EpochRecord
from studies.range_test import ABOVE, BELOW, analyse
from studies.seeds import derive, training_seed
from studies.space import POINT_DIMENSIONS, JointSpace
from studies.tasks import BUILT_IN_TASKS
from studies.trial import is_better, score

USUAL = {"sgd": 0.01}
"""Keras' default rates, where they are not those of most optimizers."""
USUAL_OF_MOST = 0.001
MOMENTUM = 0.9
"""Of SGD."""


@dataclass(frozen=True)
class Case:
    """One range test against one study."""

    task: str
    optimizer: str
    seed: int
    trials: int
    epochs: int


@dataclass(frozen=True)
class Finding:
    """What the two have found; the ranges are by the name of what suggests them."""

    case: Case
    best_rate: float
    best_value: float
    best_schedule: str
    suggestion: float
    ranges: dict[str, tuple[float, float] | None]

    def holds(self, name: str) -> bool:
        """Whether a range holds the best base rate; a suggestion that was not made does not."""
        span = self.ranges[name]
        return span is not None and span[0] <= self.best_rate <= span[1]


def definition_of(case: Case) -> StudyDefinition:
    """The study whose trials are drawn, and whose range test is run."""
    optimizer = {"type": case.optimizer, "momentum": MOMENTUM} if case.optimizer == "sgd" else case.optimizer
    return read_definition({"name": "case", "tasks": [case.task], "optimizer": optimizer, "epochs": case.epochs})


# --- the two sides


def best_trial(case: Case, keep: Path | None) -> dict[str, Any]:
    """The best of the random trials: its base rate, value and schedule; from the folder if it is there."""
    name = "-".join(str(part) for part in asdict(case).values())
    file = None if keep is None else keep / f"{name}.json"
    if file is None or not file.exists():
        trials = list(run_trials(case))
        if file is None:
            return best_of(case, trials)
        file.write_text(json.dumps(trials))
    return best_of(case, json.loads(file.read_text()))


def best_of(case: Case, trials: list[dict[str, Any]]) -> dict[str, Any]:
    direction = BUILT_IN_TASKS[case.task].direction
    best: dict[str, Any] | None = None
    for trial in trials:
        if trial["value"] is not None and (best is None or is_better(trial["value"], best["value"], direction)):
            best = trial
    assert best is not None, "no trial was completed"
    return best


def run_trials(case: Case) -> Iterator[dict[str, Any]]:
    """Train every trial of the study, in this process."""
    from workers.control import Control
    from workers.programs import Programs
    from workers.tasks import load
    from workers.training import train

    task = load()[case.task]
    programs = Programs(task())
    definition = definition_of(case)
    space = JointSpace(branches=tuple(definition.arm_space(entry.type) for entry in definition.schedules))
    for number in range(case.trials):
        point = np.random.default_rng(derive(case.seed, "benchmark", case.task, number)).random(POINT_DIMENSIONS)
        schedule, values = space.at(point)
        assignment = Assignment(
            trial_id=number + 1,
            token="none",
            attempt=1,
            lease_seconds=60.0,
            study=definition.name,
            task=case.task,
            schedule=schedule,
            phase="search",
            number=number,
            seed=training_seed(case.seed, case.task, "search", number),
            epochs=case.epochs,
            configuration=Configuration.from_flat(schedule, case.optimizer, values),
            metric=task.manifest.metric,
            direction=task.manifest.direction,
            at="best_validation",
            early_stopping=None,
            score_on_test=False,
        )
        epochs: list[EpochRecord] = []
        end = train(assignment, programs, epochs.append, Control())
        assert end is not None
        value = score([(epoch.epoch, epoch.metrics[task.manifest.metric]) for epoch in epochs], task.manifest.direction)
        yield {
            "schedule": schedule,
            "learning_rate": assignment.configuration.learning_rate,
            "outcome": end.outcome,
            "value": value.best if end.outcome == "completed" else None,
        }


def compare(case: Case, keep: Path | None) -> Finding:
    """Run both sides, in this process."""
    from workers.control import Control
    from workers.range_test import range_test
    from workers.tasks import load

    configuration = definition_of(case).range_test_configuration()
    seed = training_seed(case.seed, case.task, "range_test", 0)
    curve = range_test(load()[case.task](), configuration, seed, Control())
    assert curve is not None
    test = analyse(curve)
    usual, half = USUAL.get(case.optimizer, USUAL_OF_MOST), math.sqrt(test.high / test.low)
    ranges: dict[str, tuple[float, float] | None] = {
        "range test": (test.low, test.high),
        "usual rate": (usual / half, usual * half),
    }
    for name, rate in test.suggestions.items():
        if name != "three_fifths":
            ranges[name] = None if rate is None else (rate / BELOW, min(rate * ABOVE, test.diverged_at or math.inf))
    best = best_trial(case, keep)
    return Finding(
        case=case,
        best_rate=best["learning_rate"],
        best_value=best["value"],
        best_schedule=best["schedule"],
        suggestion=test.suggestion,
        ranges=ranges,
    )


def compare_alone(arguments: tuple[Case, Path | None]) -> Finding:
    """The comparison as a pool calls it, on one core each."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    return compare(*arguments)


# --- the table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=["digits-mlp", "diabetes-mlp"], choices=list(BUILT_IN_TASKS))
    parser.add_argument("--optimizers", nargs="+", default=["sgd"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    cases = [
        Case(task, optimizer, seed, options.trials, options.epochs)
        for task in options.tasks
        for optimizer in options.optimizers
        for seed in range(options.seeds)
    ]
    print(
        f"{'task':<18}{'optimizer':<10}{'seed':>4}  {'best rate':>9}  {'of':<18}"
        f"{'range of the test':>19}     {'usual rate, as wide':>19}"
    )
    findings: list[Finding] = []
    # A process for each: TensorFlow never frees all that a model took.
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        for finding in pool.imap(compare_alone, [(case, options.keep) for case in cases]):
            findings.append(finding)
            print(row(finding), flush=True)
    print(json.dumps({"cases": len(findings), "held": held(findings)}))


def row(finding: Finding) -> str:
    case = finding.case
    cells = "".join(f"  {shown(finding, name)}" for name in ("range test", "usual rate"))
    begin = f"{case.task:<18}{case.optimizer:<10}{case.seed:>4}"
    return f"{begin}  {finding.best_rate:>9.3g}  {finding.best_schedule:<18}{cells}"


def shown(finding: Finding, name: str) -> str:
    span = finding.ranges[name]
    assert span is not None
    return f"{f'{span[0]:.3g} to {span[1]:.3g}':>17} {'yes' if finding.holds(name) else 'no':<3}"


def held(findings: list[Finding]) -> dict[str, dict[str, int]]:
    """How many seeds' best base rates each range held, by task and optimizer."""
    counts: dict[str, dict[str, int]] = {}
    for finding in findings:
        counted = counts.setdefault(f"{finding.case.task} {finding.case.optimizer}", {})
        counted["seeds"] = counted.get("seeds", 0) + 1
        for name in finding.ranges:
            counted[name] = counted.get(name, 0) + finding.holds(name)
    return counts


if __name__ == "__main__":
    main()
