"""PostgreSQL reads no table of trials whole, however it plans, for what happens with every trial."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text

from service.database import open_database, writing
from tests.databases import Databases
from tests.service.support import Service, Worker, run_service

TRIALS = 3_000
ENDED = 1_000
CYCLES = 30
MOST_SCANS = 10
"""Of a study's beginning; not one with every trial."""


@pytest.mark.parametrize("plans", ["force_generic_plan", "auto"])
@pytest.mark.parametrize("allocation", ["equal", "explore"])
def test_no_trial_makes_postgresql_read_all_of_them(databases: Databases, plans: str, allocation: str) -> None:
    with databases.new("postgresql", fresh=True) as url:
        databases.postgresql.execute(f"ALTER DATABASE {make_url(url).database} SET plan_cache_mode = {plans}")
        with run_service(url) as service:
            search = {"trials_per_schedule": TRIALS // 2, "sampler": "tpe", "allocation": allocation}
            service.submit(search=search, pruner={"type": "median", "n_startup_trials": 1})
            worker = Worker(service.client)
            run_some(service, worker, 1)
            end_many(service)
            run_some(service, worker, CYCLES)
        # The connections have ended, and have told what they did.
        engine = open_database(url)
        with engine.connect() as connection:
            query = text(
                "SELECT relname, seq_scan, idx_scan, idx_tup_fetch FROM pg_stat_user_tables "
                "WHERE relname IN ('trials', 'epochs') ORDER BY relname"
            )
            epochs, trials = connection.execute(query).all()
        engine.dispose()
    for table in (epochs, trials):
        assert table.seq_scan <= MOST_SCANS
        assert table.idx_scan > CYCLES
        # Sampler and pruner learn of all that has ended once; with every trial of their own it would be 30 times.
        assert table.idx_tup_fetch < CYCLES / 2 * ENDED


def end_many(service: Service) -> None:
    """Let many trials have ended as the first one has, with its parameters and its epoch."""
    with writing(service.engine) as connection:
        connection.execute(
            text(
                f"""
                UPDATE trials SET state = 'pruned', attempt = 1, arm_id = done.arm_id, parameters = done.parameters,
                    configuration = done.configuration, last_epoch = 0, last_value = 0.5, ready_at = done.ready_at,
                    started_at = done.started_at, finished_at = done.finished_at, revision = 1 + trials.number
                FROM trials AS done
                WHERE done.state = 'completed' AND trials.state = 'planned' AND trials.lane = done.lane
                  AND trials.number BETWEEN 10 AND 10 + {ENDED - 1}
                """
            )
        )
        for statement in (
            'INSERT INTO attempts (trial_id, attempt, token, request_id, worker_id, started_at, ended_at, "end") '
            "SELECT id, 1, 'token-' || id, 'request-' || id, 'worker', started_at, finished_at, 'pruned' "
            "FROM trials WHERE state = 'pruned'",
            "INSERT INTO epochs SELECT t.id, 1, 0, 0.5, '{}', 0.1, 0.1, 1.0, t.finished_at "
            "FROM trials AS t WHERE state = 'pruned'",
            "UPDATE studies SET revision = (SELECT max(revision) FROM trials)",
            "ANALYZE trials, attempts, epochs",
        ):
            connection.execute(text(statement))


def run_some(service: Service, worker: Worker, cycles: int) -> None:
    director = service.director
    for _ in range(cycles):
        if not (trials := worker.claim()):
            director.step()
            trials = worker.claim()
        worker.report(trials[0], [0])
        service.clock.advance(0.5)  # so that pruning is due
        director.step(routine=False)
        worker.finish(trials[0])
