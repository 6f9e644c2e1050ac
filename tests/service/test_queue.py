from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest
from sqlalchemy import select, update

from service.database import reading, writing
from service.director import Director
from service.tables import attempts, trials, workers
from studies.client import Client
from studies.protocol import Assignment
from studies.trial import MAX_CRASHES, MAX_LOSSES, TrialState
from tests.service.support import LEASE_SECONDS, Service, Worker, same


def state_of(service: Service, trial: Assignment) -> str:
    return service.client.trial(trial.trial_id).state


def test_a_claim_leases_a_trial_with_all_that_is_needed_to_run_it(service: Service, worker: Worker) -> None:
    service.submit(learning_rate=0.25, optimizer={"type": "adam", "beta_1": 0.8}, early_stopping={"patience": 2})
    trial = worker.next(service)
    assert (trial.task, trial.phase, trial.number, trial.attempt) == ("digits-mlp", "search", 0, 1)
    assert trial.configuration.learning_rate == 0.25
    assert trial.configuration.optimizer == {
        "type": "adam",
        "beta_1": 0.8,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "amsgrad": False,
    }
    assert trial.configuration.schedule["type"] == trial.schedule
    assert (trial.metric, trial.direction, trial.at) == ("val_accuracy", "maximize", "best_validation")
    assert trial.early_stopping is not None
    assert trial.early_stopping.patience == 2
    assert trial.lease_seconds == LEASE_SECONDS
    assert not trial.score_on_test
    assert state_of(service, trial) == "running"


def test_two_workers_never_hold_the_same_trial(service: Service) -> None:
    service.submit(search={"trials_per_schedule": 20, "sampler": "random"})
    crowd = [Worker(service.client, id=f"worker-{n}", slots=4) for n in range(8)]
    for one in crowd:
        one.claim()
    service.director.step()
    held: list[int] = []

    def grab(one: Worker) -> None:
        held.extend(trial.trial_id for trial in one.claim())

    threads = [threading.Thread(target=grab, args=(one,)) for one in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 32
    assert len(set(held)) == 32


def test_the_same_request_id_gives_the_same_trials(service: Service) -> None:
    service.submit()
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    first = worker.claim(request_id="again")
    assert len(first) == 2
    assert worker.claim(request_id="again") == first
    worker.finish(first[0])
    assert worker.claim(request_id="again") == first[1:]


def test_a_repeated_claim_is_not_given_a_trial_that_went_to_another(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    other = Worker(service.client, id="other")
    assert other.claim()[0].trial_id == trial.trial_id
    with reading(service.engine) as connection:
        request_id = connection.execute(
            select(attempts.c.request_id).where(attempts.c.token == trial.token)
        ).scalar_one()
    assert worker.claim(request_id=request_id) == []


def test_an_expired_lease_goes_back_to_the_queue_and_cannot_report(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    worker.report(trial, [0])
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    assert state_of(service, trial) == "ready"
    again = Worker(service.client, id="other").claim()[0]
    assert (again.trial_id, again.attempt, again.seed) == (trial.trial_id, 2, trial.seed)
    assert again.configuration == trial.configuration
    answer = worker.report(trial, [1])
    assert (answer.status, answer.command) == (409, "abandon")
    assert "stale" in answer.detail
    assert list(service.client.epochs(trial.trial_id)) == []
    assert worker.finish(trial).status == 409
    assert worker.release(trial).status == 409
    assert state_of(service, trial) == "running"
    detail = service.client.trial(trial.trial_id)
    assert [attempt.end for attempt in detail.history] == ["lost", None]
    assert detail.lost == 1


def test_a_report_renews_the_lease(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    for _ in range(3):
        service.clock.advance(LEASE_SECONDS - 1)
        assert worker.report(trial).status == 200
        service.director.step()
        assert state_of(service, trial) == "running"


def test_a_worker_that_was_cut_off_goes_on_if_nobody_has_its_trial(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    assert service.client.trial(trial.trial_id).lost == 1
    assert same([worker.report(trial, [0, 1])]) == [(200, "continue")]
    detail = service.client.trial(trial.trial_id)
    assert (detail.state, detail.lost, detail.attempts) == ("running", 0, 1)
    assert worker.finish(trial).status == 200
    assert state_of(service, trial) == "completed"


def test_a_result_from_a_worker_that_was_cut_off_is_kept_if_nobody_has_its_trial(
    service: Service, worker: Worker
) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    assert worker.finish(trial, 0.75).status == 200
    detail = service.client.trial(trial.trial_id)
    assert (detail.state, detail.value, detail.lost) == ("completed", 0.75, 0)


def test_preempted_attempts_are_free(service: Service, worker: Worker) -> None:
    service.submit()
    for count in range(1, MAX_LOSSES + 3):
        trial = worker.next(service)
        assert (trial.number, trial.attempt) == (0, count)
        assert worker.release(trial).status == 200
        assert service.client.trial(trial.trial_id).preempted == count
    assert state_of(service, trial) == "ready"


def test_a_trial_that_crashes_too_often_is_failed(service: Service, worker: Worker) -> None:
    service.submit()
    for count in range(1, MAX_CRASHES + 1):
        trial = worker.next(service)
        assert trial.number == 0
        worker.release(trial, "crashed", reason="killed by SIGSEGV", log_end="stack")
        assert state_of(service, trial) == ("ready" if count < MAX_CRASHES else "failed")
    detail = service.client.trial(trial.trial_id)
    assert detail.reason == "killed by SIGSEGV"
    assert [(a.end, a.log_end) for a in detail.history] == [("crashed", "stack")] * MAX_CRASHES


def test_a_trial_whose_workers_vanish_too_often_is_failed(service: Service, worker: Worker) -> None:
    service.submit()
    for count in range(1, MAX_LOSSES + 1):
        trial = worker.next(service)
        service.clock.advance(LEASE_SECONDS + 1)
        service.director.step()
        assert state_of(service, trial) == ("ready" if count < MAX_LOSSES else "failed")
    assert worker.finish(trial).status == 409


def test_a_release_that_comes_twice_counts_once(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    assert same([worker.release(trial, "crashed"), worker.release(trial, "crashed")]) == [
        (200, "abandon"),
        (200, "abandon"),
    ]
    assert service.client.trial(trial.trial_id).crashed == 1


def test_a_report_that_overtook_its_release_does_not_take_the_trial_back(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    worker.release(trial)
    assert same([worker.report(trial, [0])]) == [(200, "abandon")]
    assert state_of(service, trial) == "ready"


def test_a_token_of_nobody_is_refused(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    forged = trial.model_copy(update={"token": trial.token[:-1] + "x"})
    assert same([worker.report(forged, [0]), worker.finish(forged)]) == [(409, "abandon")] * 2
    unknown = trial.model_copy(update={"trial_id": 999})
    answer = worker.report(unknown)
    assert (answer.status, answer.detail) == (409, "there is no such trial")


def test_a_message_with_one_good_token_is_carried_out_for_that_trial(service: Service) -> None:
    from studies.protocol import ReportRequest, TrialReport

    service.submit()
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    one, two = worker.claim()
    message = ReportRequest(
        worker_id=worker.id,
        trials=[
            TrialReport(trial_id=one.trial_id, token="no"),
            TrialReport(trial_id=two.trial_id, token=two.token),
        ],
    )
    assert same(service.client.report(message).trials) == [(409, "abandon"), (200, "continue")]


def test_a_stop_that_was_asked_for_comes_with_the_next_answer(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    with writing(service.engine) as connection:
        connection.execute(update(trials).where(trials.c.id == trial.trial_id).values(stop_requested=True))
    assert worker.report(trial, [0]).command == "stop"
    assert worker.finish(trial, outcome="pruned").status == 200
    assert state_of(service, trial) == "pruned"


def test_a_claim_of_a_task_that_the_worker_has_not_gets_nothing(service: Service, worker: Worker) -> None:
    service.submit()
    worker.claim()
    service.director.step()
    other = Worker(service.client, id="other", tasks=[])
    assert other.claim() == []
    assert len(worker.claim()) == 1


def test_a_paused_study_hands_out_nothing_until_it_is_resumed(service: Service, worker: Worker) -> None:
    name = service.submit()
    trial = worker.next(service)
    assert service.client.pause(name).state == "paused"
    worker.claim()
    service.director.step()
    assert worker.claim() == []
    assert worker.report(trial, [0]).command == "continue"
    assert worker.finish(trial).status == 200
    assert service.client.resume(name).state == "running"
    assert worker.next(service).trial_id != trial.trial_id


def test_cancelling_ends_every_open_trial_and_tells_workers_to_abandon(service: Service, worker: Worker) -> None:
    name = service.submit()
    done = worker.next(service)
    worker.finish(done)
    running = worker.next(service)
    assert service.client.cancel(name).state == "cancelled"
    answer = worker.report(running, [0])
    assert (answer.status, answer.command, answer.detail) == (409, "abandon", "the study was cancelled")
    assert answer.unwanted, "its checkpoint may go"
    assert worker.finish(running).status == 409
    states = [trial.state for trial in service.client.trials(name)]
    assert states == ["completed", "cancelled", "cancelled", "cancelled"]
    service.director.step()
    assert worker.claim() == []
    assert service.client.cancel(name).state == "cancelled"


def test_after_an_outage_of_the_service_leases_have_their_full_length_again(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(10 * LEASE_SECONDS)
    after = Director(service.engine, service.clock)  # nobody has led meanwhile
    after.step()
    assert state_of(service, trial) == "running"
    service.clock.advance(LEASE_SECONDS + 1)
    after.step()
    assert state_of(service, trial) == "ready"


def test_a_director_that_takes_over_at_once_grants_no_grace(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS - 1)
    service.director.step()
    service.clock.advance(0.5)
    service.director.resign()
    service.clock.advance(0.75)
    Director(service.engine, service.clock).step()
    assert state_of(service, trial) == "ready"


def test_a_claim_waits_for_the_first_ready_trial(service: Service, worker: Worker) -> None:
    answers: list[tuple[float, list[Assignment]]] = []
    started = threading.Event()

    def wait() -> None:
        started.set()
        answers.append((time.monotonic(), worker.claim(wait_seconds=30)))

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    service.submit()
    while thread.is_alive():
        service.director.step()
        thread.join(0.02)
    assert len(answers[0][1]) == 1


def test_a_worker_that_went_away_while_it_waited_is_leased_nothing(service: Service, worker: Worker) -> None:
    body = worker.request(wait_seconds=30).model_dump_json()
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        head = f"POST /api/v1/claims HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        head += "\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        while not service.client.workers():
            time.sleep(0.01)
    name = service.submit()
    service.director.step()
    time.sleep(0.3)  # the claim has long been woken
    assert [trial.state for trial in service.client.trials(name)].count(TrialState.READY) == 1
    assert len(worker.claim()) == 1


def test_a_claim_with_nothing_to_do_returns_empty_after_its_wait(service: Service, worker: Worker) -> None:
    assert worker.claim(wait_seconds=0.1) == []


def test_the_service_counts_the_free_slots_of_a_worker(service: Service) -> None:
    def free() -> int:
        with reading(service.engine) as connection:
            return int(connection.execute(select(workers.c.free_slots)).scalar_one())

    service.submit()
    worker = Worker(service.client, slots=3)
    worker.claim()
    assert free() == 3
    service.director.step()
    held = worker.claim()
    assert (len(held), free()) == (3, 0)
    worker.finish(held[0])
    assert free() == 1
    worker.release(held[1])
    assert free() == 2


@pytest.mark.parametrize("slots", [1, 3])
def test_as_many_trials_are_ready_as_slots_are_free_and_no_more(service: Service, slots: int) -> None:
    name = service.submit(search={"trials_per_schedule": 20, "sampler": "tpe"})
    worker = Worker(service.client, slots=slots)
    service.director.step()

    def ready() -> int:
        return sum(trial.state == "ready" for trial in service.client.trials(name))

    assert ready() == 0
    worker.claim()
    for _ in range(3):
        service.director.step()
        assert ready() == slots


def test_a_request_id_belongs_to_its_worker(service: Service, worker: Worker) -> None:
    service.submit()
    worker.claim(request_id="mine")
    service.director.step()
    (trial,) = worker.claim(request_id="mine")
    other = Worker(service.client, id="other")
    assert other.claim(request_id="mine") == []
    assert worker.claim(request_id="mine") == [trial]


def test_a_repeated_claim_frees_no_slots(service: Service) -> None:
    name = service.submit(search={"trials_per_schedule": 9, "sampler": "random"})
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    assert len(worker.claim(request_id="twice")) == 2
    assert len(worker.claim(request_id="twice")) == 2
    service.director.step()
    assert [trial.state for trial in service.client.trials(name)].count(TrialState.READY) == 0


def test_a_claim_of_more_slots_than_the_worker_has_is_refused(service: Service, worker: Worker) -> None:
    request = worker.request().model_dump(mode="json") | {"slots": 5}
    answer = httpx.post(f"{service.url}/api/v1/claims", json=request, trust_env=False)
    assert answer.status_code == 422
    assert "slots <= worker.slots" in answer.json()["fields"][0]["message"]


def test_a_release_after_the_lease_expired_is_known_for_what_it_was(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    assert worker.release(trial).status == 200
    detail = service.client.trial(trial.trial_id)
    assert (detail.state, detail.lost, detail.preempted) == ("ready", 0, 1)
    assert same([worker.report(trial, [0])]) == [(200, "abandon")]
    assert state_of(service, trial) == "ready"


def test_a_trial_that_came_back_goes_behind_those_that_wait_already(service: Service) -> None:
    service.submit(search={"trials_per_schedule": 9, "sampler": "random"})
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    (first,) = worker.claim(1)
    service.clock.advance(1)
    worker.release(first)
    assert worker.claim(1)[0].trial_id != first.trial_id


def test_a_lease_holds_to_its_very_last_instant(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    service.clock.advance(LEASE_SECONDS)
    service.director.step()
    assert state_of(service, trial) == "running"


def test_a_ready_trial_of_a_paused_study_is_not_handed_out(service: Service, worker: Worker) -> None:
    name = service.submit()
    worker.claim()
    service.director.step()
    service.client.pause(name)
    assert worker.claim() == []
    service.client.resume(name)
    assert len(worker.claim()) == 1


def test_a_worker_that_only_reports_is_alive_and_one_that_is_silent_is_not(service: Service, worker: Worker) -> None:
    service.submit()
    trial = worker.next(service)
    for _ in range(5):
        service.clock.advance(50)
        worker.report(trial)
    assert service.client.workers()[0].alive
    service.clock.advance(600)
    service.director.step()
    assert [(view.alive, view.lost) for view in service.client.workers()] == [(False, 1)]
    assert [task.workers for task in service.client.tasks()] == [0]


def test_eighty_workers_at_once_are_all_answered(service: Service) -> None:
    """More requests than the process has threads: none may wait for a thread while it holds the database."""
    service.submit(search={"trials_per_schedule": 100, "sampler": "random"})
    crowd = [Worker(Client(service.url), id=f"worker-{n}") for n in range(80)]
    for one in crowd:
        one.claim()
    service.director.step()
    held: list[Assignment] = []
    failures: list[Exception] = []

    def work(one: Worker) -> None:
        try:
            for trial in one.claim():
                one.report(trial, [0])
                one.report(trial, [1])
                held.append(trial)
        except Exception as error:  # noqa: BLE001 - told below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in crowd:
        one.client.close()
    assert failures == []
    assert len({trial.trial_id for trial in held}) == 80


def test_a_message_is_409_if_all_of_it_is_stale_and_200_otherwise(service: Service) -> None:
    service.submit()
    worker = Worker(service.client, slots=2)
    worker.claim()
    service.director.step()
    one, two = worker.claim()
    good = {"trial_id": one.trial_id, "token": one.token}
    bad = {"trial_id": two.trial_id, "token": "no"}
    for parts, status in (([bad], 409), ([good, bad], 200), ([good], 200)):
        body = {"worker_id": worker.id, "trials": parts}
        answer = httpx.post(f"{service.url}/api/v1/reports", json=body, trust_env=False)
        assert answer.status_code == status
        assert len(answer.json()["trials"]) == len(parts)
