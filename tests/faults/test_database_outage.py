"""PostgreSQL is killed under load and comes back: 503 meanwhile, and nothing is lost."""

from __future__ import annotations

import pytest

from benchmarks import outage

pytestmark = pytest.mark.slow


def test_every_route_answers_503_while_postgresql_is_away_and_the_study_ends_unaided() -> None:
    outcome = outage.run(seconds=6.0, trials=40, workers=4)
    assert outcome.wrong == []
    assert outcome.replaced == []
    assert outcome.found.is_clean, outcome.found
    asked = {(reply.probe.method, reply.probe.path) for reply in outcome.replies}
    refused = {(reply.probe.method, reply.probe.path) for reply in outcome.replies if reply.status == 503}
    assert asked - refused == {("GET", "/healthz")}
    assert ("GET", "/readyz") in refused
