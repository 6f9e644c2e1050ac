"""`learning_rate: auto`: a range test of each task goes before its search and sets the range of the base rate."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from service.database import reading
from service.director import Director
from service.range_tests import found, with_base_rate
from service.tables import arms, boards
from studies import errors, range_test
from studies.errors import Refused
from studies.protocol import RangeTestView
from studies.range_test import RangeCurve, RangeTest
from studies.space import Choice, Fixed, FlatSpace, Range
from studies.tasks import BUILT_IN_TASKS
from studies.trial import MAX_CRASHES, MAX_LOSSES, TrialState
from tests.service.support import LEASE_SECONDS, Service, Worker, rate_value, records, run_service, run_to_end, swept

SEARCH = {"trials_per_schedule": 4, "sampler": "random"}
SGD_DEFAULT = (0.001, 1.0)
SAYS_NOTHING = RangeCurve(rates=[1e-7], losses=[None], smoothed=[None])


def submit(service: Service, **changes: Any) -> str:
    return service.submit(**{"learning_rate": "auto", "search": SEARCH, "confirm": {"seeds": 0}, **changes})


def phases(service: Service, study: str) -> Counter[tuple[str, str]]:
    return Counter((trial.phase, str(trial.state)) for trial in service.client.trials(study))


def base_rates(service: Service, study: str, task: str | None = None) -> list[float]:
    return [
        trial.configuration.learning_rate
        for trial in service.client.trials(study)
        if trial.phase == "search" and trial.configuration is not None and task in (None, trial.task)
    ]


def the_test(service: Service, study: str) -> RangeTestView:
    (view,) = service.client.study(study).range_tests
    return view


def two_tasks(service: Service, **options: Any) -> Worker:
    manifests = [BUILT_IN_TASKS[name].model_copy(update={"fingerprint": "f"}) for name in ("digits-mlp", "wine-mlp")]
    return Worker(service.client, tasks=manifests, **options)


@pytest.mark.parametrize(
    ("allocation", "sampler"), [("equal", "random"), ("equal", "tpe"), ("equal", "qmc"), ("explore", "tpe")]
)
def test_the_search_waits_for_the_range_test_and_stays_in_its_range(
    service: Service, allocation: str, sampler: str
) -> None:
    name = submit(service, search={**SEARCH, "allocation": allocation, "sampler": sampler}, confirm={"seeds": 1})
    worker = Worker(service.client, slots=3)
    worker.claim()
    service.director.step()
    (trial,) = worker.claim()
    assert (trial.phase, trial.task, trial.number) == ("range_test", "digits-mlp", 0)
    for _ in range(3):  # nothing else is filled in, however often there are free slots
        assert worker.claim() == []
        service.director.step()
    assert phases(service, name) == {("range_test", "running"): 1, ("search", "planned"): 8}
    assert worker.finish(trial, range_curve=swept(0.1)).status == 200
    run_to_end(service, name, worker)
    test = the_test(service, name)
    assert test.found is not None
    assert test.found.low == pytest.approx(test.found.suggestion / 10)
    assert test.found.high <= test.found.suggestion * 3 * (1 + 1e-9)
    rates = base_rates(service, name)
    assert len(rates) == 8
    assert all(test.found.low <= rate <= test.found.high for rate in rates)
    assert SGD_DEFAULT[0] < test.found.low or test.found.high < SGD_DEFAULT[1]
    assert [warning for warning in service.client.study(name).warnings if "range test" in warning] == []
    assert phases(service, name)["search", "completed"] == 8


def test_the_range_of_the_base_rate_and_nothing_else_changes_in_every_arm_of_the_task(
    service: Service, worker: Worker
) -> None:
    name = submit(service, batch_size=[16, 32])

    def spaces() -> list[FlatSpace]:
        with reading(service.engine) as connection:
            found = connection.execute(select(arms.c.space).order_by(arms.c.id)).scalars()
            return [FlatSpace.model_validate(space) for space in found]

    before = spaces()
    worker.finish(worker.next(service))
    service.director.step()
    test = the_test(service, name)
    assert test.found is not None
    for old, new in zip(before, spaces(), strict=True):
        assert list(new.domains) == list(old.domains)  # the base rate takes the first coordinate of a point
        assert new.domains["learning_rate"] == Range(low=test.found.low, high=test.found.high, log=True)
        assert {**new.domains, "learning_rate": old.domains["learning_rate"]} == old.domains


def test_a_range_test_runs_with_the_middle_of_what_is_searched(service: Service, worker: Worker) -> None:
    submit(
        service,
        optimizer={"type": "adamw", "beta_1": {"low": 0.8, "high": 0.9}, "amsgrad": True},
        batch_size=[16, 64, 256],
        weight_decay={"low": 1e-4, "high": 1e-2, "log": True},
        warmup=0.1,
    )
    trial = worker.next(service)
    configuration = trial.configuration
    assert (trial.schedule, configuration.schedule) == ("constant", {"type": "constant"})
    assert (configuration.batch_size, configuration.warmup) == (64, 0.0)
    assert configuration.weight_decay == pytest.approx(1e-3)
    assert configuration.optimizer["beta_1"] == pytest.approx(0.85)
    assert (configuration.optimizer["type"], configuration.optimizer["amsgrad"]) == ("adamw", True)
    assert (trial.metric, trial.direction, trial.score_on_test) == ("val_accuracy", "maximize", False)


def test_tasks_of_a_study_wait_for_their_own_range_test_alone(service: Service) -> None:
    name = submit(service, tasks=["digits-mlp", "wine-mlp"])
    worker = two_tasks(service, slots=2)
    worker.claim()
    service.director.step()
    digits, wine = worker.claim()
    assert [(t.phase, t.task) for t in (digits, wine)] == [("range_test", "digits-mlp"), ("range_test", "wine-mlp")]
    assert digits.seed != wine.seed
    worker.finish(digits, range_curve=swept(0.01))
    worker.claim(1)
    service.director.step()
    other = worker.claim(1)
    assert [(t.phase, t.task) for t in other] == [("search", "digits-mlp")]
    worker.finish(wine, range_curve=swept(1.0))
    for trial in other:
        worker.finish(trial)
    run_to_end(service, name, worker)
    tests = {test.task: test for test in service.client.study(name).range_tests}
    assert list(tests) == ["digits-mlp", "wine-mlp"]
    suggested = {task: test.found.suggestion for task, test in tests.items() if test.found is not None}
    assert suggested["wine-mlp"] / suggested["digits-mlp"] == pytest.approx(100, rel=0.5)
    for task, test in tests.items():
        assert test.found is not None
        assert all(test.found.low <= rate <= test.found.high for rate in base_rates(service, name, task))


def test_range_tests_go_before_searches_that_could_begin(service: Service) -> None:
    """The task that waits for nothing any more leaves the next slot to the range test that another waits for."""
    name = submit(service, tasks=["digits-mlp", "wine-mlp"])
    digits = Worker(service.client, id="digits")
    digits.finish(digits.next(service))
    assert digits.next(service).phase == "search"
    trial = two_tasks(service, id="both").next(service)
    assert (trial.phase, trial.task) == ("range_test", "wine-mlp")
    assert phases(service, name)["search", "planned"] == 15


def test_other_studies_of_the_same_task_go_on_meanwhile(service: Service) -> None:
    submit(service)
    other = service.submit(name="other", learning_rate=0.1)
    worker = Worker(service.client, slots=3)
    worker.claim()
    service.director.step()
    assert Counter((t.study, t.phase) for t in worker.claim()) == {("small", "range_test"): 1, (other, "search"): 2}
    assert service.client.study(other).range_tests == []


def test_the_same_study_has_the_same_range_test(service: Service, worker: Worker) -> None:
    for name in ("one", "two"):
        submit(service, name=name)
        worker.finish(worker.next(service))
        service.director.step()
        service.client.cancel(name)
    one, two = (next(iter(service.client.trials(name))) for name in ("one", "two"))
    assert (one.seed, one.configuration) == (two.seed, two.configuration)
    assert one.seed not in {trial.seed for trial in service.client.trials("one") if trial.phase != "range_test"}


# --- where it finds nothing


def fallen_back(service: Service, study: str) -> str:
    """That the search runs to its end over the default range; what the study's owner is told."""
    service.director.step()
    test = the_test(service, study)
    assert test.found is None
    run_to_end(service, study, Worker(service.client, id="second"))
    rates = base_rates(service, study)
    assert len(rates) == 8
    assert all(SGD_DEFAULT[0] <= rate <= SGD_DEFAULT[1] for rate in rates)
    assert max(rates) / min(rates) > 10
    (warning,) = service.client.study(study).warnings
    assert warning == f"digits-mlp: {test.failure}"
    assert warning.endswith("; the optimizer's default is searched, 0.001 to 1")
    return warning


def test_a_curve_that_says_nothing_leaves_the_default_range_and_a_warning(service: Service, worker: Worker) -> None:
    name = submit(service)
    trial = worker.next(service)
    worker.finish(trial, range_curve=SAYS_NOTHING)
    warning = fallen_back(service, name)
    with pytest.raises(errors.RangeTestFailed) as error:
        range_test.analyse(SAYS_NOTHING)
    assert str(error.value)[:40] in warning
    assert service.client.range_test(name).curve == SAYS_NOTHING


@pytest.mark.parametrize("outcome", ["failed", "diverged", "pruned"])
def test_a_range_test_that_ends_otherwise_leaves_the_default_range_and_its_reason(
    service: Service, worker: Worker, outcome: Any
) -> None:
    name = submit(service)
    worker.finish(worker.next(service), outcome=outcome, reason="the task has no loss")
    assert f"(its trial {outcome}: the task has no loss)" in fallen_back(service, name)
    assert service.client.range_test(name).curve is None


def test_a_range_test_that_crashes_too_often_leaves_the_default_range(service: Service, worker: Worker) -> None:
    name = submit(service)
    for _ in range(MAX_CRASHES):
        trial = worker.next(service)
        assert (trial.phase, phases(service, name)["search", "planned"]) == ("range_test", 8)
        worker.release(trial, "crashed", reason="killed by SIGSEGV")
    assert "(its trial failed: killed by SIGSEGV)" in fallen_back(service, name)


def test_a_range_test_that_is_lost_too_often_leaves_the_default_range(service: Service, worker: Worker) -> None:
    name = submit(service)
    for _ in range(MAX_LOSSES):
        assert worker.next(service).phase == "range_test"
        service.clock.advance(LEASE_SECONDS + 1)
        service.director.step()
    assert f"(its trial failed: lost {MAX_LOSSES} times" in fallen_back(service, name)


def test_a_curve_that_breaks_the_analysis_stops_nobody(
    service: Service, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(curve: RangeCurve) -> RangeTest:
        raise ZeroDivisionError("division by zero")

    name = submit(service)
    worker.finish(worker.next(service))
    monkeypatch.setattr("service.range_tests.analyse", broken)
    assert "cannot be analysed: ZeroDivisionError: division by zero" in fallen_back(service, name)


def test_a_lost_and_a_preempted_attempt_are_run_again(service: Service, worker: Worker) -> None:
    name = submit(service)
    first = worker.next(service)
    service.clock.advance(LEASE_SECONDS + 1)
    service.director.step()
    second = worker.next(service)
    worker.release(second, "preempted")
    third = worker.next(service)
    assert [t.trial_id for t in (first, second, third)] == [first.trial_id] * 3
    assert [t.attempt for t in (first, second, third)] == [1, 2, 3]
    assert (first.seed, first.configuration) == (third.seed, third.configuration)
    assert worker.finish(first).status == 409
    assert worker.finish(third).status == 200
    service.director.step()
    assert the_test(service, name).found is not None


# --- once, and by the director alone


def test_a_result_that_comes_twice_is_one(service: Service, worker: Worker) -> None:
    name = submit(service)
    trial = worker.next(service)
    worker.finish(trial, range_curve=swept(0.1))
    worker.finish(trial, range_curve=swept(0.001))
    service.director.step()
    before = service.client.range_test(name)
    assert before.curve == swept(0.1)
    worker.finish(trial, range_curve=swept(0.001))
    worker.finish(trial, outcome="failed")
    service.director.step()
    assert service.client.range_test(name) == before


def test_a_result_outlives_the_director_that_was_to_judge_it(
    service: Service, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = submit(service)
    worker.finish(worker.next(service))
    assert (the_test(service, name).state, the_test(service, name).found) == ("completed", None)
    service.director.resign()
    service.director = Director(service.engine, service.clock)
    service.director.step()
    judged = the_test(service, name)
    assert judged.found is not None
    monkeypatch.setattr("service.range_tests.analyse", lambda curve: pytest.fail("it is judged once"))
    worker.next(service)
    service.director.resign()
    service.director = Director(service.engine, service.clock)
    service.director.step()
    assert the_test(service, name) == judged


def test_a_judgement_that_could_not_be_committed_is_made_again(
    service: Service, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = submit(service)
    worker.finish(worker.next(service))

    def fail(*_: Any) -> None:
        raise RuntimeError("the director dies")

    with monkeypatch.context() as patch:
        patch.setattr("service.phases._end_searches_of_arms", fail)
        with pytest.raises(RuntimeError, match="the director dies"):
            service.director.step()
    assert the_test(service, name).found is None
    service.director.resign()
    service.director = Director(service.engine, service.clock)
    service.director.step()
    test = the_test(service, name)
    assert test.found is not None
    trial = worker.next(service)
    assert test.found.low <= trial.configuration.learning_rate <= test.found.high


def test_a_paused_study_keeps_its_range_test_back_and_judges_one_that_runs(service: Service, worker: Worker) -> None:
    name = submit(service)
    service.client.pause(name)
    worker.claim()
    service.director.step()
    assert worker.claim() == []
    service.client.resume(name)
    trial = worker.next(service)
    service.client.pause(name)
    worker.finish(trial)
    service.director.step()
    assert the_test(service, name).found is not None
    assert worker.claim() == []
    service.client.resume(name)
    assert worker.next(service).phase == "search"


def test_a_cancelled_study_ends_its_range_test_and_is_not_judged(service: Service, worker: Worker) -> None:
    name = submit(service)
    trial = worker.next(service)
    service.client.cancel(name)
    assert worker.finish(trial).status == 409
    service.director.step()
    test = the_test(service, name)
    assert (test.state, test.found, test.failure) == ("cancelled", None, "")
    assert phases(service, name) == {("range_test", "cancelled"): 1, ("search", "cancelled"): 8}
    with reading(service.engine) as connection:
        assert connection.execute(select(boards.c.awaits_range_test)).scalar_one()


def test_an_unknown_task_is_waited_for_before_its_range_test(service: Service) -> None:
    name = submit(service, tasks=["own"])
    assert service.study_state(name) == "waiting_for_task"
    own = BUILT_IN_TASKS["wine-mlp"].model_copy(update={"name": "own", "fingerprint": "f"})
    worker = Worker(service.client, tasks=[own])
    assert (worker.next(service).phase, service.study_state(name)) == ("range_test", "running")


# --- what is refused


def refused(error: pytest.ExceptionInfo[Refused]) -> tuple[int, str]:
    return error.value.status, error.value.problem["fields"][0]["field"]


def test_a_completed_range_test_must_bring_its_curve(service: Service, worker: Worker) -> None:
    submit(service)
    trial = worker.next(service)
    with pytest.raises(Refused, match="it must bring its curve if it is completed, and only then") as error:
        worker.finish(trial, range_curve=None)
    assert refused(error) == (422, "range_curve")
    with pytest.raises(Refused, match="its outcome is failed") as error:
        worker.finish(trial, outcome="failed", range_curve=swept())
    assert refused(error) == (422, "range_curve")
    assert service.client.trial(trial.trial_id).state == "running"
    assert worker.finish(trial).status == 200


def test_only_a_range_test_has_a_curve(service: Service, worker: Worker) -> None:
    service.submit(schedules=["constant"], search={"trials_per_schedule": 1, "sampler": "random"})
    for phase in ("search", "confirm"):
        trial = worker.next(service)
        assert trial.phase == phase
        with pytest.raises(Refused, match=f"of the {phase} phase: only a range test has a curve") as error:
            worker.finish(trial, range_curve=swept())
        assert refused(error) == (422, "range_curve")
        worker.finish(trial)
        service.director.step()


def test_a_range_test_has_no_epochs_and_no_test_scores(service: Service, worker: Worker) -> None:
    submit(service)
    trial = worker.next(service)
    with pytest.raises(Refused, match="a range test has no epochs"):
        worker.report(trial, [0])
    with pytest.raises(Refused, match="a range test has no epochs"):
        worker.finish(trial, epochs=records(trial, [0], 0.5))
    for field in ("test_best", "test_last"):
        scores: dict[str, Any] = {field: {"accuracy": 0.5}}
        with pytest.raises(Refused, match="a range test, which has no scores") as error:
            worker.finish(trial, **scores)
        assert refused(error) == (422, field)
    assert worker.report(trial).command == "continue"  # a heartbeat
    assert service.client.trial(trial.trial_id).state == "running"


@pytest.mark.parametrize(
    ("rates", "losses"),
    [
        ([], []),
        ([0.1, 0.2], [1.0]),
        ([1e-6 * (n + 1) for n in range(1001)], [1.0] * 1001),
        ([0.1, 0.1], [1.0, 1.0]),
        ([0.0, 0.1], [1.0, 1.0]),
    ],
    ids=["empty", "a loss too few", "too long", "not rising", "not above 0"],
)
def test_a_curve_that_cannot_be_one_is_refused(
    service: Service, worker: Worker, rates: list[float], losses: list[float]
) -> None:
    submit(service)
    trial = worker.next(service)
    part: dict[str, Any] = {"trial_id": trial.trial_id, "token": trial.token, "outcome": "completed"}
    part |= {"train_seconds": 1, "range_curve": {"rates": rates, "losses": losses, "smoothed": losses}}
    answer = httpx.post(
        f"{service.url}/api/v1/results", json={"worker_id": worker.id, "trials": [part]}, trust_env=False
    )
    assert answer.status_code == 422
    assert {bad["field"].split(".")[:3] == ["trials", "0", "range_curve"] for bad in answer.json()["fields"]} == {True}
    assert service.client.trial(trial.trial_id).state == "running"


# --- what is shown


def test_the_numbers_are_in_the_study_and_the_curve_is_served(service: Service, worker: Worker) -> None:
    name = submit(service)
    waiting = the_test(service, name)
    assert (waiting.task, waiting.state, waiting.found) == ("digits-mlp", "planned", None)
    trial = worker.next(service)
    worker.finish(trial, range_curve=swept(0.2))
    service.director.step()
    view = service.client.study(name)
    expected = range_test.analyse(swept(0.2))
    assert [(t.task, t.trial_id, t.state, t.found) for t in view.range_tests] == [
        ("digits-mlp", trial.trial_id, "completed", expected)
    ]
    raw = httpx.get(f"{service.url}/api/v1/studies/{name}", trust_env=False).json()
    assert raw["range_tests"][0]["found"] == expected.model_dump()
    assert "curve" not in raw["range_tests"][0]
    for detail in (service.client.range_test(name), service.client.range_test(name, "digits-mlp")):
        assert detail.curve == swept(0.2)
        assert detail.model_dump(exclude={"curve"}) == view.range_tests[0].model_dump()


def test_a_range_test_that_is_not_there_is_said(service: Service) -> None:
    plain = service.submit(name="plain")
    several = submit(service, tasks=["digits-mlp", "wine-mlp"])
    with pytest.raises(Refused, match="there is no range test in the study 'plain'") as error:
        service.client.range_test(plain)
    assert error.value.status == 404
    with pytest.raises(Refused, match="there is no study 'nowhere'"):
        service.client.range_test("nowhere")
    with pytest.raises(Refused, match="did you mean 'digits-mlp'") as error:
        service.client.range_test(several, "digits-ml")
    assert error.value.status == 404
    with pytest.raises(Refused, match="name one of: digits-mlp, wine-mlp") as error:
        service.client.range_test(several)
    assert refused(error) == (422, "task")
    assert service.client.range_test(several, "wine-mlp").task == "wine-mlp"


@pytest.mark.parametrize("allocation", ["equal", "explore"])
def test_a_range_test_counts_as_a_trial_but_belongs_to_no_schedule(service: Service, allocation: str) -> None:
    name = submit(service, search={**SEARCH, "allocation": allocation}, confirm={"seeds": 1})
    worker = Worker(service.client)
    trial = worker.next(service)
    assert service.client.study(name).trials_planned == 9
    assert service.client.study(name).unassigned == ({} if allocation == "equal" else {"digits-mlp": {"planned": 8}})
    worker.finish(trial, train_seconds=1000.0)
    detail = service.client.trial(trial.trial_id)
    assert (detail.phase, detail.schedule, detail.value, detail.state) == ("range_test", None, None, "completed")
    assert detail.train_seconds == 1000.0
    assert list(service.client.epochs(trial.trial_id)) == []
    run_to_end(service, name, worker)
    view = service.client.study(name)
    assert view.trials_finished == view.trials_planned == 9 + sum(sum(arm.confirm.values()) for arm in view.arms)
    assert sum(sum(arm.search.values()) for arm in view.arms) == 8
    entries = service.client.leaderboard(study=name).entries
    assert sum(entry.completed for entry in entries) == view.trials_finished - 1
    assert sum(entry.train_seconds for entry in entries) < 1000.0
    with reading(service.engine) as connection:
        completed, seconds = connection.execute(
            text("SELECT SUM(completed), SUM(train_seconds) FROM arena_leaderboard")
        ).one()
        (row,) = connection.execute(text("SELECT schedule, value FROM arena_trials WHERE phase = 'range_test'"))
    assert (completed, seconds) == (view.trials_finished - 1, pytest.approx(sum(e.train_seconds for e in entries)))
    assert tuple(row) == (None, None)


def test_steps_per_epoch_are_kept_for_every_trial(service: Service, worker: Worker) -> None:
    service.submit()
    told = worker.next(service)
    worker.finish(told, steps_per_epoch=10)
    silent = worker.next(service)
    worker.finish(silent)
    assert service.client.trial(told.trial_id).steps_per_epoch == 10
    assert service.client.trial(silent.trial_id).steps_per_epoch is None
    part = {"trial_id": 1, "token": "t", "outcome": "failed", "train_seconds": 0, "steps_per_epoch": 0}
    answer = httpx.post(f"{service.url}/api/v1/results", json={"worker_id": "w", "trials": [part]}, trust_env=False)
    assert answer.json()["fields"][0]["field"] == "trials.0.steps_per_epoch"


def test_an_interrupted_study_has_the_trials_of_an_uninterrupted_one(database: str, tmp_path: Path) -> None:
    """The web process, the director and the worker are replaced after every step."""
    with run_service(f"sqlite:///{tmp_path}/whole.db") as whole:
        name = submit(whole)
        run_to_end(whole, name)
        expected = sorted(base_rates(whole, name))
    clock = None
    finished = False
    for life in range(40):
        with run_service(database, clock) as service:
            clock = service.clock
            submit(service)
            service.director.step()
            worker = Worker(service.client, id=f"life-{life}", slots=4)
            for _ in range(2):
                for trial in worker.claim():
                    worker.finish(trial, rate_value(trial))
                if life % 2:
                    service.director.step()
            finished = service.study_state(name) == "finished"
            if finished:
                assert sorted(base_rates(service, name)) == expected
                break
            service.director.resign()
    assert finished


# --- the decision, without a service


def test_what_is_found_is_a_test_or_the_reason_why_there_is_none() -> None:
    assert found(TrialState.COMPLETED, "", swept()) == range_test.analyse(swept())
    assert found(TrialState.FAILED, "no loss", None) == "its trial failed: no loss"
    assert found(TrialState.DIVERGED, "", None) == "its trial diverged"


def test_the_base_rate_is_searched_on_a_log_scale_over_the_range_found() -> None:
    domains: dict[str, Any] = {
        "learning_rate": Range(low=0.1, high=1.0),
        "warmup": Fixed(value=0.0),
        "schedule.alpha": Choice(values=(0.0, 0.1)),
    }
    test = RangeTest(suggestion=0.1, low=0.01, high=0.3, suggestions={}, diverged_at=None, rule="")
    space = with_base_rate(FlatSpace(schedule="cosine", domains=domains), test)
    assert space.at([0.5, 0.0])["learning_rate"] == pytest.approx(math.sqrt(0.01 * 0.3))
    assert list(space.domains) == list(domains)
