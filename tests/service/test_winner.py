"""Taking the winner home, through the API."""

from __future__ import annotations

import ast
from typing import Any

import httpx
import pytest

from studies.errors import Refused
from studies.protocol import Answer, Assignment, EpochRecord, Outcome
from studies.schedules import OpenLoop
from studies.schedules.table import rate_table
from studies.tasks import BUILT_IN_TASKS
from tests.service.support import Service, Worker, run_to_end

STEPS_PER_EPOCH = 10


class Exact(Worker):
    """Tells the rates that a training applies, and how many steps its epochs have."""

    def finish(self, trial: Assignment, value: float = 0.5, outcome: Outcome = "completed", **changes: Any) -> Answer:
        schedule = trial.configuration.make_schedule()
        assert isinstance(schedule, OpenLoop)
        rates = rate_table(
            schedule,
            trial.configuration.learning_rate,
            warmup=trial.configuration.warmup,
            steps=trial.epochs * STEPS_PER_EPOCH,
            steps_per_epoch=STEPS_PER_EPOCH,
            seed=trial.seed,
        ).tolist()
        epochs = [
            EpochRecord(
                epoch=epoch,
                metrics={trial.metric: value},
                lr_first=rates[epoch * STEPS_PER_EPOCH],
                lr_last=rates[(epoch + 1) * STEPS_PER_EPOCH - 1],
                seconds=0.25,
            )
            for epoch in range(trial.epochs)
        ]
        return super().finish(
            trial, value, outcome, **{"epochs": epochs, "steps_per_epoch": STEPS_PER_EPOCH, **changes}
        )


@pytest.fixture
def worker(service: Service) -> Worker:
    return Exact(service.client)


def cosine_wins(trial: Assignment) -> float:
    return (0.95 if trial.schedule == "cosine" else 0.9) + 0.001 * (trial.number % 3)


def code_of(service: Service, **query: str) -> httpx.Response:
    return httpx.get(f"{service.url}/api/v1/leaderboard/winner", params=query)


def test_the_winner_comes_with_its_trials_and_the_rates_they_recorded(service: Service, worker: Worker) -> None:
    name = service.submit(schedules=["constant", "cosine"], warmup=0.1, confirm={"seeds": 3})
    run_to_end(service, name, worker, cosine_wins)
    winner = service.client.winner(task="digits-mlp")
    first, second = service.client.leaderboard(task="digits-mlp").entries
    assert (winner.entry, winner.runner_up) == (first, second)
    assert (winner.entry.schedule, winner.entry.study, winner.provisional) == ("cosine", name, False)
    confirmed = [t.id for t in service.client.trials(name) if (t.schedule, t.phase) == ("cosine", "confirm")]
    assert winner.confirm_trials == confirmed
    assert winner.search_trial == first.search_trial
    assert (winner.epochs, winner.steps_per_epoch, winner.warmup_steps, winner.fingerprint) == (3, 10, 3, "f1")
    assert f"these rates are those that trial {confirmed[0]} recorded" in " ".join(winner.notes)
    assert "CosineDecay" in winner.keras


def test_the_code_alone_is_a_python_file(service: Service, worker: Worker) -> None:
    name = service.submit(confirm={"seeds": 1})
    run_to_end(service, name, worker, cosine_wins)
    winner = service.client.winner(task="digits-mlp")
    for form, code in (("keras", winner.keras), ("callback", winner.callback)):
        answer = code_of(service, task="digits-mlp", format=form)
        assert (answer.status_code, answer.text) == (200, code)
        assert answer.headers["content-type"].startswith("text/x-python")
        ast.parse(answer.text)
    assert code_of(service, task="digits-mlp", format="torch").status_code == 422


def test_the_winner_of_a_study_is_its_own(service: Service, worker: Worker) -> None:
    run_to_end(service, service.submit(name="better", schedules=["cosine"]), worker, cosine_wins)
    worse = service.submit(name="worse", schedules=["step"])
    run_to_end(service, worse, worker, cosine_wins)
    assert service.client.winner(task="digits-mlp").entry.study == "better"
    assert service.client.winner(study=worse).entry.schedule == "step"
    assert service.client.winner(study=worse, task="digits-mlp") == service.client.winner(study=worse)


def test_noise_is_that_of_the_first_confirm_run(service: Service, worker: Worker) -> None:
    name = service.submit(schedules=["noisy_linear_cosine"], confirm={"seeds": 2})
    run_to_end(service, name, worker, cosine_wins)
    winner = service.client.winner(study=name)
    first = service.client.trial(winner.confirm_trials[0])
    assert first.number == 0
    assert winner.notes[-2].endswith(f"this is the curve of trial {first.id}, seed {first.seed}")
    assert winner.notes[-1].startswith("these rates are those")


def test_before_any_confirm_run_the_winner_is_provisional(service: Service, worker: Worker) -> None:
    name = service.submit(schedules=["cosine"], confirm={"seeds": 2})
    worker.finish(worker.next(service), 0.9)
    winner = service.client.winner(study=name)
    assert (winner.provisional, winner.confirm_trials, winner.entry.mean) == (True, [], None)
    assert f"trial {winner.search_trial} recorded" in " ".join(winner.notes)
    assert f"the study {name} is not finished but running: another schedule may win yet" in winner.notes
    assert winner.keras.startswith("# PROVISIONAL")


def refused(service: Service, **which: str) -> Refused:
    with pytest.raises(Refused) as caught:
        service.client.winner(**which)
    return caught.value


def test_without_a_result_there_is_no_winner(service: Service) -> None:
    name = service.submit()
    for which in ({"study": name}, {"task": "digits-mlp"}):
        error = refused(service, **which)
        assert error.status == 409
        assert str(error) == f"there is no winner on 'digits-mlp' yet: no trial of study {name!r} has a result"


def test_without_a_study_there_is_no_winner(service: Service) -> None:
    error = refused(service, task="wine-mlp")
    assert (error.status, str(error)) == (409, "there is no winner yet: no study has the task 'wine-mlp' yet")


def test_a_task_that_nobody_has_announced_has_no_winner(service: Service) -> None:
    name = service.submit(tasks=["of-tomorrow"])
    error = refused(service, study=name)
    assert error.status == 409
    assert "no worker has announced the task 'of-tomorrow' yet" in str(error)


def test_names_that_nobody_knows_are_not_found(service: Service) -> None:
    name = service.submit()
    assert refused(service, study="smal").status == 404
    assert refused(service, task="digits-mpl").status == 404
    error = refused(service, study=name, task="digits-mpl")
    assert error.status == 404
    assert "did you mean 'digits-mlp'?" in str(error)


def test_it_must_be_clear_which_winner_is_meant(service: Service) -> None:
    error = refused(service)
    assert (error.status, error.problem["fields"][0]["message"]) == (422, "give a task, or a study, or both")
    name = service.submit(tasks=["digits-mlp", "wine-mlp"])
    error = refused(service, study=name)
    assert error.status == 422
    assert "give one of digits-mlp, wine-mlp" in str(error)


def test_trials_that_did_not_tell_their_steps_are_refused_with_the_reason(service: Service) -> None:
    name = service.submit(schedules=["cosine"])
    run_to_end(service, name, Worker(service.client), cosine_wins)
    error = refused(service, study=name)
    assert error.status == 409
    assert "did not record how many optimizer steps an epoch has" in str(error)


def test_a_schedule_that_reacts_to_a_metric_is_written_by_any_trial(service: Service) -> None:
    name = service.submit(schedules=["greedy"], tasks=["diabetes-mlp"])
    manifest = BUILT_IN_TASKS["diabetes-mlp"].model_copy(update={"fingerprint": "d"})
    run_to_end(service, name, Worker(service.client, tasks=[manifest]), cosine_wins)
    winner = service.client.winner(study=name)
    assert (winner.table, winner.steps_per_epoch, winner.metric) == (None, None, "val_loss")
    assert "class Greedy(ClosedLoop)" in winner.keras
