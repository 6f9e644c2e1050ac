"""Results that come under a lease that is no longer good: refused, and kept to be looked at."""

from __future__ import annotations

import httpx

from service.clock import iso
from studies.protocol import ResultRequest
from tests.service.support import LEASE_SECONDS, Service, Worker, result, same


def test_a_result_that_comes_too_late_is_refused_and_kept_once(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    other = Worker(service.client, id="other")
    (again,) = other.claim()
    assert again.trial_id == trial.trial_id
    received = service.clock.now
    for value in (0.75, 0.25):  # the first one is kept
        assert same([worker.finish(trial, value)]) == [(409, "abandon")]
        service.clock.advance(1)
    detail = service.client.trial(trial.trial_id)
    assert (detail.state, detail.attempts, detail.value) == ("running", 2, None)
    (late,) = detail.late_results
    assert (late.attempt, late.worker, late.received_at) == (1, worker.id, iso(received))
    assert "leased anew" in late.refused_because
    sent = result(trial, 0.75).model_dump(mode="json")
    assert late.result == {key: value for key, value in sent.items() if key != "token"}
    assert trial.token not in httpx.get(f"{service.url}/api/v1/trials/{trial.trial_id}", trust_env=False).text

    assert other.finish(again, 0.5).status == 200
    detail = service.client.trial(trial.trial_id)
    assert (detail.value, len(detail.late_results)) == (0.5, 1)
    assert list(service.client.epochs(trial.trial_id))[-1].metrics["val_accuracy"] == 0.5


def test_results_of_a_cancelled_study_are_kept_and_forged_ones_are_not(service: Service) -> None:
    name = service.submit()
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    one, two = worker.claim()
    service.client.cancel(name)
    forged = result(two, 0.9).model_copy(update={"token": one.token})
    message = ResultRequest(worker_id=worker.id, trials=[result(one, 0.5), forged])
    assert same(service.client.finish(message).trials) == [(409, "abandon")] * 2
    assert worker.finish(two.model_copy(update={"token": "never-given"})).status == 409
    (late,) = service.client.trial(one.trial_id).late_results
    assert late.refused_because == "the study was cancelled"
    assert service.client.trial(two.trial_id).late_results == []


def test_what_is_kept_does_not_hold_up_the_rest_of_the_message(service: Service) -> None:
    service.submit(search={"trials_per_schedule": 9, "sampler": "random"})
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    (late,) = worker.claim(1)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    taken = Worker(service.client, id="other", slots=9)
    assert late.trial_id in [trial.trial_id for trial in taken.claim()]
    good = worker.next(service)
    message = ResultRequest(worker_id=worker.id, trials=[result(late, 0.5), result(good, 0.5)])
    assert same(service.client.finish(message).trials) == [(409, "abandon"), (200, "abandon")]
    assert service.client.trial(good.trial_id).state == "completed"
    assert len(service.client.trial(late.trial_id).late_results) == 1
    assert service.client.trial(good.trial_id).late_results == []
