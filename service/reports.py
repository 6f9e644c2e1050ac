"""Epochs in, commands out; results in. Every message may come twice: the second changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, select, update

from service import history, queue
from service.clock import Instant
from service.database import insert_new
from service.queue import Held
from service.tables import arms, epochs, trials
from studies.errors import FieldError, InvalidMessage
from studies.protocol import (
    Answer,
    EpochRecord,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialReport,
    TrialResult,
)
from studies.schedules import schedule_class
from studies.trial import Score, TrialState, score

LARGEST_VALUE = 1e100
"""A metric beyond this counts as not finite: the squares of such numbers are."""


def accept_reports(connection: Connection, request: ReportRequest, now: Instant, lease: int) -> list[Answer]:
    """Store epochs, renew leases, and answer what each trial is to do.

    An epoch that is there already stays as it is.
    """
    holds = queue.hold(connection, _tokens(request.trials))
    held = [(item, h) for item in request.trials if isinstance(h := holds[item.trial_id], Held)]
    queue.renew(connection, [h for _, h in held], now, lease)
    queue.seen(connection, request.worker_id, now)
    _store_epochs(connection, held, now)
    return [_answer(holds[item.trial_id]) for item in request.trials]


def accept_results(connection: Connection, request: ResultRequest, now: Instant) -> list[Answer]:
    """Finish trials: store the remaining epochs, the scores and the outcome; of a range test its curve.

    Raises InvalidMessage, and changes nothing, if an epoch is missing or the scores are not all there, and if a
    range test brings no curve or anything else does.
    """
    holds = queue.hold(connection, _tokens(request.trials))
    held = [(item, h) for item in request.trials if isinstance(h := holds[item.trial_id], Held)]
    queue.renew(connection, [h for _, h in held if not h.live], now, lease=0)
    _store_epochs(connection, held, now)
    for item, h in held:
        _finish(connection, item, h, now)
    queue.seen(connection, request.worker_id, now)
    return [_done(holds[item.trial_id]) for item in request.trials]


def accept_releases(connection: Connection, request: ReleaseRequest, now: Instant) -> list[Answer]:
    """Hand trials back to the queue."""
    holds = queue.hold(connection, _tokens(request.trials))
    for item in request.trials:
        held = holds[item.trial_id]
        if isinstance(held, Held):
            queue.release(connection, item, held, now)
    return [_done(holds[item.trial_id]) for item in request.trials]


def _tokens(items: Sequence[Any]) -> dict[int, str]:
    tokens: dict[int, str] = {}
    for index, item in enumerate(items):
        if item.trial_id in tokens:
            raise InvalidMessage(
                [FieldError(f"trials[{index}].trial_id", item.trial_id, "a trial may stand once in a message")]
            )
        tokens[item.trial_id] = item.token
    return tokens


def _answer(held: Held | Answer) -> Answer:
    if isinstance(held, Answer):
        return held
    return Answer(trial_id=held.trial_id, status=200, command="stop" if held.stop_requested else "continue")


def _done(held: Held | Answer) -> Answer:
    """The answer to what ends a lease: there is nothing more to do for it."""
    return held if isinstance(held, Answer) else Answer(trial_id=held.trial_id, status=200, command="abandon")


def _store_epochs(connection: Connection, held: Sequence[tuple[TrialReport | TrialResult, Held]], now: Instant) -> None:
    rows = [
        {
            "trial_id": h.trial_id,
            "attempt": h.attempt,
            "epoch": record.epoch,
            "value": _finite(_objective(item, record, h)),
            "metrics": {name: _finite(value) for name, value in record.metrics.items()},
            "lr_first": record.lr_first,
            "lr_last": record.lr_last,
            "seconds": record.seconds,
            "reported_at": now,
        }
        for item, h in held
        for record in item.epochs
    ]
    insert_new(connection, epochs, rows)


def _objective(item: TrialReport | TrialResult, record: EpochRecord, held: Held) -> float | None:
    """The objective of an epoch. Raises InvalidMessage for an epoch that cannot be this trial's."""
    where = f"trial {item.trial_id}, epoch {record.epoch}"
    if held.phase == "range_test":
        raise InvalidMessage([FieldError("epochs", record.epoch, f"{where}: a range test has no epochs")])
    if record.epoch >= held.definition.epochs:
        last = held.definition.epochs - 1
        raise InvalidMessage([FieldError("epochs.epoch", record.epoch, f"{where}: the study's last epoch is {last}")])
    if held.metric not in record.metrics:
        message = f"{where}: the study's objective {held.metric!r} must be among the metrics of every epoch"
        raise InvalidMessage([FieldError("epochs.metrics", sorted(record.metrics), message)])
    return record.metrics[held.metric]


def _finish(connection: Connection, item: TrialResult, held: Held, now: Instant) -> None:
    result = _swept(item, held) if held.phase == "range_test" else _trained(connection, item, held)
    values = {
        **result,
        "lease_expires_at": None,
        "train_seconds": item.train_seconds,
        "steps_per_epoch": item.steps_per_epoch,
        "finished_at": now,
        "revision": history.advance(connection, held.study_id),
    }
    connection.execute(update(trials).where(trials.c.id == held.trial_id).values(**values))
    queue.end_attempt(connection, held.trial_id, held.attempt, values["state"], now, reason=values["reason"])
    queue.free_slot(connection, held.worker_id)


def _swept(item: TrialResult, held: Held) -> dict[str, Any]:
    """The result of a range test. What it says about the base rate is for the director to judge."""
    if item.test_best is not None or item.test_last is not None:
        field = "test_last" if item.test_best is None else "test_best"
        raise InvalidMessage([FieldError(field, None, f"trial {item.trial_id} is a range test, which has no scores")])
    completed = item.outcome == "completed"
    if completed != (item.range_curve is not None):
        message = f"trial {item.trial_id} is a range test: it must bring its curve if it is completed, and only then"
        raise InvalidMessage([FieldError("range_curve", None, f"{message} (its outcome is {item.outcome})")])
    curve = None if item.range_curve is None else item.range_curve.model_dump(mode="json")
    return {"state": TrialState(item.outcome), "reason": item.reason, "range_curve": curve}


def _trained(connection: Connection, item: TrialResult, held: Held) -> dict[str, Any]:
    """The result of a training run."""
    if item.range_curve is not None:
        message = f"trial {item.trial_id} is of the {held.phase} phase: only a range test has a curve"
        raise InvalidMessage([FieldError("range_curve", None, message)])
    run = _score(connection, item, held)
    at_best = held.definition.objective.at == "best_validation"
    value = run.best if at_best else run.last
    test_best = _test_value("test_best", item, held)
    test_last = _test_value("test_last", item, held)
    test_value = test_best if at_best else test_last
    outcome, reason = TrialState(item.outcome), item.reason
    if outcome == TrialState.COMPLETED and (value is None or (held.phase == "confirm" and test_value is None)):
        outcome, reason = TrialState.DIVERGED, f"{held.metric} was not finite at the epoch that counts"
    return {
        "state": outcome,
        "reason": reason,
        "value": value,
        "best_value": run.best,
        "best_epoch": run.best_epoch,
        "last_value": run.last,
        "last_epoch": run.last_epoch,
        "test_value": test_value,
        "test_value_best": test_best,
        "test_value_last": test_last,
        "test_best": item.test_best,
        "test_last": item.test_last,
    }


def _score(connection: Connection, item: TrialResult, held: Held) -> Score:
    rows = connection.execute(
        select(epochs.c.epoch, epochs.c.value)
        .where(epochs.c.trial_id == held.trial_id, epochs.c.attempt == held.attempt)
        .order_by(epochs.c.epoch)
    ).all()
    expected = rows[-1].epoch + 1 if rows else 0
    if item.outcome == "completed":
        ended_early = expected < held.definition.epochs and _may_end_early(connection, held)
        expected = max(expected, 1 if ended_early else held.definition.epochs)
    missing = sorted(set(range(expected)) - {row.epoch for row in rows})
    if missing:
        shown = ", ".join(map(str, missing[:10]))
        raise InvalidMessage(
            [
                FieldError(
                    "epochs",
                    [record.epoch for record in item.epochs],
                    f"every epoch of trial {item.trial_id} must be sent before or with its result; missing: {shown}",
                )
            ]
        )
    return score([(row.epoch, row.value) for row in rows], held.direction)


def _may_end_early(connection: Connection, held: Held) -> bool:
    if held.definition.early_stopping is not None:
        return True
    of_trial = select(arms.c.schedule).join(trials, trials.c.arm_id == arms.c.id).where(trials.c.id == held.trial_id)
    return schedule_class(connection.execute(of_trial).scalar_one()).stops_early


def _test_value(field: Literal["test_best", "test_last"], item: TrialResult, held: Held) -> float | None:
    scores = item.test_best if field == "test_best" else item.test_last
    name = held.metric.removeprefix("val_")
    if scores is None and (held.phase == "search" or item.outcome != "completed"):
        return None
    if scores is None or name not in scores:
        raise InvalidMessage(
            [
                FieldError(
                    field,
                    scores and sorted(scores),
                    f"a completed trial of the confirm phase must have {name!r} among its scores on the test data",
                )
            ]
        )
    return _finite(scores[name])


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) <= LARGEST_VALUE else None
