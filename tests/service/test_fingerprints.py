"""One name, two problems: a task that is announced with two fingerprints is flagged, and results are not pooled."""

from __future__ import annotations

from studies.tasks import BUILT_IN_TASKS
from tests.service.support import Service, Worker, run_to_end


def worker_with(service: Service, fingerprint: str, name: str = "") -> Worker:
    task = BUILT_IN_TASKS["digits-mlp"].model_copy(update={"fingerprint": fingerprint})
    return Worker(service.client, id=name or f"has-{fingerprint}", tasks=[task])


def flags(service: Service) -> dict[str | None, tuple[int, bool]]:
    return {task.fingerprint: (task.workers, task.conflicting) for task in service.client.tasks()}


def warnings(service: Service, study: str) -> list[str]:
    return [warning for warning in service.client.study(study).warnings if "fingerprint" in warning]


def test_a_study_goes_on_with_the_data_and_code_that_its_first_trial_met(service: Service) -> None:
    name = service.submit()
    old, new = worker_with(service, "old"), worker_with(service, "new")
    held = old.next(service)
    assert flags(service) == {"old": (1, False)}
    assert new.claim() == []
    service.director.step()
    assert new.claim() == [], "nothing was filled in for it, and nothing is given to it"
    assert flags(service) == {"old": (1, True), "new": (1, True)}
    assert warnings(service, name) == [
        "workers announce 'digits-mlp' with another fingerprint ('new') than this study's ('old'): "
        "other data or code; they are given no trials of it, and results are not pooled"
    ]

    old.finish(held)
    service.clock.advance(3600)  # the old one has gone, the study waits for its like
    for _ in range(2):
        assert new.claim() == []
        service.director.step()
    assert flags(service) == {"old": (0, True), "new": (1, False)}
    other = worker_with(service, "old", "another-of-the-old")
    done = run_to_end(service, name, other)
    assert len(done) == 7


def test_a_study_that_has_not_begun_follows_the_workers_that_are_there(service: Service) -> None:
    name = service.submit()
    gone = worker_with(service, "old")
    gone.claim()
    service.director.step()  # its first trial waits for the old one
    service.clock.advance(3600)
    new = worker_with(service, "new")
    assert new.next(service).study == name
    assert warnings(service, name) == []


def test_the_more_common_of_two_fingerprints_is_taken(service: Service) -> None:
    service.submit()
    crowd = [worker_with(service, fingerprint, f"worker-{n}") for n, fingerprint in enumerate("abb")]
    for worker in crowd:
        worker.claim()
    service.director.step()
    assert [len(worker.claim()) for worker in crowd] == [0, 1, 1]


def test_a_task_without_a_fingerprint_has_one_too(service: Service) -> None:
    service.submit()
    nameless = Worker(service.client, tasks=[BUILT_IN_TASKS["digits-mlp"]])
    nameless.next(service)
    other = worker_with(service, "f")
    other.claim()
    service.director.step()
    assert other.claim() == []


def test_a_tasks_leaderboard_pools_the_studies_of_the_latest_fingerprint_alone(service: Service) -> None:
    for name, fingerprint, value in (("a", "old", 0.9), ("b", "new", 0.5), ("c", "new", 0.6)):
        service.submit(name=name, confirm={"seeds": 1})
        finish(service, name, fingerprint, value)
    waiting = service.submit(name="waiting")  # without results, and of whatever comes
    board = service.client.leaderboard(task="digits-mlp")
    assert {(entry.study, entry.mean) for entry in board.entries} == {("c", 0.6)}
    assert "1 studies that met other data or code under this task's name are left out" in board.notes
    assert service.client.leaderboard(study="a").entries[0].mean == 0.9

    finish(service, waiting, "old", 0.2)
    board = service.client.leaderboard(task="digits-mlp")
    assert {(entry.study, entry.mean) for entry in board.entries} == {("a", 0.9)}
    assert "2 studies that met other data or code under this task's name are left out" in board.notes


def finish(service: Service, study: str, fingerprint: str, value: float) -> None:
    """Run a study by a worker that is alone, with the same value for every trial."""
    service.clock.advance(3600)
    run_to_end(service, study, worker_with(service, fingerprint, f"runs-{study}"), lambda _: value, limit=50)
