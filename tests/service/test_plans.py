"""PostgreSQL reads no table of trials whole, however it plans, for what happens with every trial."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text

from service.database import open_database
from service.director import Director
from tests.databases import Databases
from tests.service.support import Service, Worker, run_service

TRIALS = 3_000
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
            run_some(service)
        # The connections have ended, and have told what they did.
        engine = open_database(url)
        with engine.connect() as connection:
            query = text("SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'trials'")
            whole, by_index = connection.execute(query).one()
        engine.dispose()
    assert whole <= MOST_SCANS
    assert by_index > CYCLES


def run_some(service: Service) -> None:
    worker, director = Worker(service.client), Director(service.engine, service.clock)
    for _ in range(CYCLES):
        if not (trials := worker.claim()):
            director.step()
            trials = worker.claim()
        worker.report(trials[0], [0])
        service.clock.advance(0.5)  # so that pruning is due
        director.step(routine=False)
        worker.finish(trials[0])
