"""A study survives a kill of everything that runs, on a network that drops, cuts, delays and doubles requests."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from benchmarks.chaos import Options, recounted, survived
from benchmarks.cluster.faults import DECK
from benchmarks.cluster.proxy import KINDS
from service.database import open_database, writing

pytestmark = pytest.mark.slow

OPTIONS = Options(
    trials=60,
    workers=4,
    lease_seconds=2.0,
    epoch_seconds=0.03,
    pause=(0.3, 0.9),
    away=(0.5, 1.5),
    most_kills=len(DECK),
    fault_rate=0.25,
    minutes_at_most=3.0,
)

A_TRIAL = "(SELECT min(id) FROM trials)"
TAMPERED = [
    ("lost", "which was acknowledged", f"DELETE FROM epochs WHERE trial_id = {A_TRIAL} AND epoch = 3"),
    ("inconsistent", "epoch 4 of", f"UPDATE epochs SET value = 2 WHERE trial_id = {A_TRIAL} AND epoch = 4"),
    ("inconsistent", "its result", f"UPDATE trials SET value = 2 WHERE id = {A_TRIAL}"),
    ("inconsistent", "times lost", f"UPDATE trials SET lost = lost + 1 WHERE id = {A_TRIAL}"),
    ("inconsistent", "revisions of the trials", f"UPDATE trials SET revision = 1000 WHERE id = {A_TRIAL}"),
    ("lost", "completed was acknowledged", f"UPDATE attempts SET \"end\" = 'lost' WHERE trial_id = {A_TRIAL}"),
    ("doubled", "has 0 results", "SELECT 1"),
    ("lost", "a planned trial", "DELETE FROM trials WHERE id = (SELECT max(id) FROM trials)"),
]
"""What is done to the tables, one after another, and what a recount must then say."""


def test_a_study_loses_and_doubles_nothing_while_everything_around_it_is_killed() -> None:
    with survived(OPTIONS) as (cluster, outcome):
        assert outcome.found.is_clean, outcome.found
        assert outcome.trials == outcome.found.counts["attempts completed"] == OPTIONS.trials
        assert set(outcome.faults) == {*DECK, *KINDS}, "a kind of fault was left out"
        engine = open_database(cluster.database)
        for kind, words, statement in TAMPERED:
            with writing(engine) as connection:
                connection.execute(text(statement))
            findings: list[str] = getattr(recounted(cluster, OPTIONS), kind)
            assert any(words in finding for finding in findings), (statement, findings)
        engine.dispose()
