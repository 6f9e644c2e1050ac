"""Kept models as the service knows them: with the results that brought them, and the best of each schedule."""

from __future__ import annotations

from typing import Any

import pytest

from studies.errors import Refused
from studies.protocol import Assignment, KeptModel, ResultRequest
from studies.tasks import TaskManifest
from tests.service.support import Service, Worker, result, small_study


def kept(trial: Assignment, **changes: Any) -> KeptModel:
    address = f"s3://bucket/arena/{trial.study}/{trial.task}/{trial.schedule}/trial-{trial.trial_id}.keras"
    return KeptModel(**{"address": address, "bytes": 2**40, "sha256": f"{trial.trial_id:064x}", **changes})


def run_search(service: Service, worker: Worker, confirms: int) -> list[Assignment]:
    """Run the search trials of a study; its confirm trials, so many, on lease."""
    confirm: list[Assignment] = []
    while len(confirm) < confirms:
        trial = worker.next(service)
        if trial.phase == "confirm":
            confirm.append(trial)
        else:
            worker.finish(trial)
    return confirm


def test_the_best_kept_model_of_each_schedule_is_listed(service: Service) -> None:
    tasks = [
        TaskManifest(name="loss", metric="val_loss", direction="minimize"),
        TaskManifest(name="accuracy", metric="val_accuracy", direction="maximize"),
    ]
    study = service.submit(
        tasks=["loss", "accuracy"],
        schedules=["step", "cosine"],
        search={"trials_per_schedule": 1},
        confirm={"seeds": 4},
    )
    worker = Worker(service.client, slots=50, tasks=tasks)
    confirm = run_search(service, worker, 2 * 2 * 4)
    assert service.client.models(study) == []
    for trial in reversed(confirm):
        # Numbers 1 and 2 are equally good; 3 is better, and nobody has kept its model.
        merit = {0: 1, 1: 2, 2: 2, 3: 3}[trial.number]
        value = merit / 4 if trial.direction == "maximize" else -merit / 4
        worker.finish(trial, value, model=None if trial.number == 3 else kept(trial))
    listed = service.client.models(study)
    expected = [(task, schedule) for task in ("loss", "accuracy") for schedule in ("step", "cosine")]
    assert [(model.task, model.schedule) for model in listed] == expected
    for model in listed:
        (best,) = [t for t in confirm if (t.task, t.schedule, t.number) == (model.task, model.schedule, 1)]
        stored = service.client.trial(best.trial_id)
        assert (model.trial_id, model.number, model.seed, model.worker) == (best.trial_id, 1, best.seed, worker.id)
        assert (model.metric, model.value) == (best.metric, stored.value)
        assert model.test_value == (0.5 if model.task == "accuracy" else -0.5)
        assert model.model == stored.model == kept(best)
    assert {trial.model for trial in service.client.trials(study) if trial.phase == "search"} == {None}


def test_only_completed_confirm_trials_bring_a_model(service: Service) -> None:
    study = service.submit(schedules=["constant"], search={"trials_per_schedule": 1}, confirm={"seeds": 3})
    worker = Worker(service.client, slots=3)
    search = worker.next(service)
    with pytest.raises(Refused, match=rf"model: only .* trial {search.trial_id} is completed, of search"):
        worker.finish(search, model=kept(search))
    worker.finish(search)
    pruned, diverged, fine = (worker.next(service) for _ in range(3))
    with pytest.raises(Refused, match=rf"trial {pruned.trial_id} is failed, of confirm"):
        worker.finish(pruned, outcome="failed", model=kept(pruned))
    assert service.client.trial(pruned.trial_id).state == "running"
    # What the worker takes for completed, and the service for diverged, has no model.
    worker.finish(diverged, test_best={"accuracy": None}, model=kept(diverged))
    found = service.client.trial(diverged.trial_id)
    assert (found.state, found.model) == ("diverged", None)
    worker.finish(fine, model=kept(fine))
    assert [model.trial_id for model in service.client.models(study)] == [fine.trial_id]


IMPOSSIBLE = [
    ("address", "/models/trial-1.keras"),
    ("address", "simplecache::s3://bucket/x"),
    ("address", "s3://bucket/\x00"),
    ("address", "s3://" + "x" * 4000),
    ("bytes", -1),
    ("bytes", 2**63),
    ("sha256", "not a digest"),
]


def test_a_model_that_cannot_be_one_is_refused_by_its_field(service: Service) -> None:
    service.submit(name="bounds", schedules=["constant"], search={"trials_per_schedule": 1}, confirm={"seeds": 1})
    worker = Worker(service.client)
    worker.finish(worker.next(service))
    trial = worker.next(service)
    for field, value in IMPOSSIBLE:
        item = result(trial, 0.5, model=kept(trial))
        assert item.model is not None
        setattr(item.model, field, value)
        with pytest.raises(Refused) as refused:
            service.client.finish(ResultRequest.model_construct(worker_id=worker.id, trials=[item]))
        assert [problem["field"] for problem in refused.value.problem["fields"]] == [f"trials.0.model.{field}"]
    assert service.client.trial(trial.trial_id).state == "running"


def test_models_of_an_unknown_study_are_not_found(service: Service) -> None:
    service.client.submit(small_study(name="known"))
    with pytest.raises(Refused) as refused:
        service.client.models("knwon")
    assert refused.value.status == 404
    assert "did you mean 'known'?" in str(refused.value)
