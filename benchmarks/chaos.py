"""Never lose a result: a study of 2,000 trials while everything around it is killed (-9) at random.

PostgreSQL (durable: fsync and synchronous_commit on), two independent `lr-arena serve` on it, and real agents whose
training processes sleep in place of training. Every few seconds one of them dies or is frozen: a worker, a training
process, a web process, a director, a whole service, PostgreSQL; and a proxy between workers and services drops,
cuts off, delays, doubles and replays requests. What dies is started again, as a supervisor of the system would do.

When the study is finished, a checker outside the service counts again from the workers' own notes (what was trained,
what the service has acknowledged): `lost`, `doubled` and `inconsistent` must be 0, else the exit code is 1.

    .venv/bin/python -m benchmarks.chaos [--trials 2000] [--workers 16] [--epochs 10] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster.cluster import Cluster, running_cluster
from benchmarks.cluster.faults import Faults
from benchmarks.cluster.recount import Recount, recount
from benchmarks.cluster.trainer import TASK

SCHEDULES = ("constant", "cosine", "step", "exponential")
STUDY = "chaos"
SHOWN = 20
"""So many findings of a kind are printed."""


@dataclass(frozen=True)
class Options:
    """How much, and how hard.

    pause: the shortest and the longest time between two kills, in seconds; the first comes when a trial has ended.
    away: the same of PostgreSQL's absences. most_kills: after so many there are no more. fault_rate: the part of
    requests that meet a fault on their way. epoch_seconds: of an epoch, on the average.
    """

    trials: int = 2000
    workers: int = 16
    epochs: int = 10
    seed: int = 0
    minutes_at_most: float = 60.0
    lease_seconds: float = 5.0
    epoch_seconds: float = 0.05
    pause: tuple[float, float] = (1.0, 4.0)
    away: tuple[float, float] = (1.0, 5.0)
    most_kills: int | None = None
    fault_rate: float = 0.15
    progress_seconds: float = 15.0


@dataclass(frozen=True)
class Outcome:
    """What came of it: the faults that were done, by kind, and what a recount found."""

    found: Recount
    faults: Counter[str]
    trials: int
    seconds: float

    @property
    def figures(self) -> dict[str, Any]:
        """The last line."""
        return {
            "lost": len(self.found.lost),
            "doubled": len(self.found.doubled),
            "inconsistent": len(self.found.inconsistent),
            "faults": self.faults.total(),
            "trials": self.trials,
            "seconds": round(self.seconds, 1),
            "faults_by_kind": dict(sorted(self.faults.items())),
        }


def definition(options: Options) -> dict[str, Any]:
    """A study of a search alone, with as many trials as asked for, rounded up to the same number for each schedule."""
    return {
        "name": STUDY,
        "tasks": [TASK],
        "schedules": list(SCHEDULES),
        "epochs": options.epochs,
        "search": {"trials_per_schedule": planned_trials(options) // len(SCHEDULES), "sampler": "random"},
        "confirm": {"seeds": 0},
    }


def planned_trials(options: Options) -> int:
    """As many trials as asked for, rounded up."""
    return len(SCHEDULES) * math.ceil(options.trials / len(SCHEDULES))


@contextmanager
def survived(options: Options) -> Iterator[tuple[Cluster, Outcome]]:
    """Run a study to its end, or until the time is up, with faults all the while; the cluster, and what came of it.

    In the block the workers have ended, and the services and PostgreSQL are still there.
    """
    with running_cluster(
        services=2,
        workers=options.workers,
        lease_seconds=options.lease_seconds,
        epoch_seconds=options.epoch_seconds,
        fault_rate=options.fault_rate,
        seed=options.seed,
    ) as cluster:
        cluster.client().submit(definition(options))
        faults = Faults(
            cluster,
            lease_seconds=options.lease_seconds,
            pause=options.pause,
            away=options.away,
            seed=options.seed,
            most=options.most_kills,
        )
        began = time.monotonic()
        _run_to_the_end(cluster, faults, options)
        seconds = time.monotonic() - began
        faults.finish()
        cluster.settle()
        done = faults.done + cluster.proxy.faults
        yield cluster, Outcome(recounted(cluster, options), done, planned_trials(options), seconds)


def recounted(cluster: Cluster, options: Options) -> Recount:
    """What a recount finds now, and what has ended by itself."""
    planned = planned_trials(options)
    found = recount(STUDY, planned, options.epochs, cluster.database, cluster.folder, cluster.client())
    found.inconsistent += cluster.unexpected
    return found


def _run_to_the_end(cluster: Cluster, faults: Faults, options: Options) -> None:
    began = time.monotonic()
    told_at = -math.inf
    has_begun = False
    while (now := time.monotonic()) - began < 60 * options.minutes_at_most:
        cluster.keep_alive()
        view = cluster.study(STUDY)
        has_begun = has_begun or (view is not None and view.trials_finished > 0)
        if has_begun:
            faults.step(now)
        if now - told_at >= options.progress_seconds and view is not None:
            told_at = now
            done = (faults.done + cluster.proxy.faults).total()
            trials = f"{view.trials_finished:>6} of {planned_trials(options)} trials"
            print(f"{now - began:7.0f} s  {trials}  {done:>6} faults", flush=True)
        if view is not None and view.state == "finished":
            return
        time.sleep(0.05)


def _print(outcome: Outcome) -> None:
    print(f"\n{'fault':<26}{'times':>7}")
    for kind, times in sorted(outcome.faults.items()):
        print(f"{kind:<26}{times:>7}")
    print(f"\n{'seen':<42}{'times':>7}")
    for what, times in sorted(outcome.found.counts.items()):
        print(f"{what:<42}{times:>7}")
    for kind in ("lost", "doubled", "inconsistent"):
        findings: list[str] = getattr(outcome.found, kind)
        for finding in findings[:SHOWN]:
            print(f"{kind}: {finding}")
        if len(findings) > SHOWN:
            print(f"{kind}: and {len(findings) - SHOWN} more")
    print(json.dumps(outcome.figures), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=Options.trials)
    parser.add_argument("--workers", type=int, default=Options.workers)
    parser.add_argument("--epochs", type=int, default=Options.epochs)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--minutes-at-most", type=float, default=Options.minutes_at_most)
    with survived(Options(**vars(parser.parse_args()))) as (cluster, outcome):
        _print(outcome)
        if not outcome.found.is_clean:
            kept = tempfile.mkdtemp(prefix="arena-chaos-")
            shutil.copytree(cluster.folder, kept, dirs_exist_ok=True)
            print(f"the notes and the logs are in {kept}", file=sys.stderr)
    return 0 if outcome.found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
