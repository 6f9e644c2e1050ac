"""Epochs in, commands out; results in. Every message may come twice: the second changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Update, bindparam, select, update

from service import faults, history, queue, roster
from service.clock import Instant
from service.database import insert_new
from service.known import Known, Leased
from service.queue import Held
from service.tables import attempts, epochs, late_results, trials
from studies.errors import FieldError, InvalidMessage
from studies.protocol import (
    Answer,
    EpochRecord,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialReport,
    TrialResult,
)
from studies.schedules import schedule_class
from studies.trial import AttemptEnd, Score, TrialState, score

LARGEST_VALUE = 1e100
"""A metric beyond this counts as not finite: the squares of such numbers are."""


def accept_reports(
    connection: Connection, known: Known, requests: Sequence[ReportRequest], now: Instant, lease: int
) -> list[list[Answer]]:
    """Store epochs, renew leases, and answer what each trial is to do: for each request, in its order.

    An epoch that is there already stays as it is. A lease of which most is left is not renewed yet.
    The requests may not share a trial.
    """
    holds = queue.hold(connection, known, _tokens(requests), lock=False)
    due = {h.trial_id: h.token for h in holds.values() if isinstance(h, Held) and queue.due_for_renewal(h, now, lease)}
    if due:
        holds |= queue.hold(connection, known, due)
        queue.renew(connection, [h for i in due if isinstance(h := holds[i], Held)], now, lease)
    _store_epochs(connection, _held(requests, holds), now)
    alive = {request.worker_id for request in requests if any(item.trial_id in due for item in request.trials)}
    devices = {request.worker_id: request.devices for request in requests if request.devices is not None}
    for worker_id in sorted({*alive, *devices}):
        roster.seen(connection, worker_id, now, devices.get(worker_id))
    return [[_answer(holds[item.trial_id]) for item in request.trials] for request in requests]


def accept_results(
    connection: Connection, known: Known, requests: Sequence[ResultRequest], now: Instant
) -> list[list[Answer]]:
    """Finish trials: store the remaining epochs, the scores and the outcome; of a range test its curve.

    A result under a stale token is refused, and kept to be looked at. The requests may not share a trial.
    Raises InvalidMessage, and changes nothing, if an epoch is missing or the scores are not all there, and if a
    range test brings no curve or anything else does.
    """
    holds = queue.hold(connection, known, _tokens(requests))
    held = _held(requests, holds)
    queue.renew(connection, [h for _, h in held if not h.live], now, lease=0)
    _store_epochs(connection, held, now)
    outcomes = [(item, h, _result(connection, item, h)) for item, h in held]
    for item, h, result in sorted(outcomes, key=lambda outcome: outcome[1].study_id):
        _finish(connection, item, h, result, now)
    _keep_late(connection, requests, holds, now)
    _after_attempts(connection, [(h, str(result["state"]), str(result["reason"])) for _, h, result in outcomes], now)
    return [[_done(holds[item.trial_id]) for item in request.trials] for request in requests]


def accept_releases(
    connection: Connection, known: Known, requests: Sequence[ReleaseRequest], now: Instant
) -> list[list[Answer]]:
    """Hand trials back to the queue. The requests may not share a trial."""
    holds = queue.hold(connection, known, _tokens(requests))
    held = _held(requests, holds)
    for item, h in sorted(held, key=lambda one: one[1].study_id):
        queue.release(connection, item, h, now)
    _after_attempts(connection, [(h, str(item.cause), item.reason) for item, h in held], now)
    return [[_done(holds[item.trial_id]) for item in request.trials] for request in requests]


Request = ReportRequest | ResultRequest | ReleaseRequest


def check_distinct(request: Request) -> None:
    """Raises InvalidMessage if a trial stands twice in a message."""
    met: set[int] = set()
    parts: Sequence[TrialReport | TrialResult | TrialRelease] = request.trials
    for index, item in enumerate(parts):
        if item.trial_id in met:
            raise InvalidMessage(
                [FieldError(f"trials[{index}].trial_id", item.trial_id, "a trial may stand once in a message")]
            )
        met.add(item.trial_id)


def _tokens(requests: Sequence[Request]) -> dict[int, str]:
    return {item.trial_id: item.token for request in requests for item in request.trials}


def _held(requests: Sequence[Any], holds: Mapping[int, Held | Answer]) -> list[tuple[Any, Held]]:
    """The parts of the messages whose senders hold the trial, with what they hold."""
    return [(item, h) for request in requests for item in request.trials if isinstance(h := holds[item.trial_id], Held)]


def _after_attempts(connection: Connection, ended: Sequence[tuple[Held, str, str]], now: Instant) -> None:
    """What follows for workers and studies from attempts that have ended: each with its end and its reason.

    Workers get their slots back; one whose attempts keep failing at once is barred for a while, and a study whose
    attempts all fail for the same reason is paused.
    """
    failing = {AttemptEnd.CRASHED, TrialState.FAILED}
    failed = [(h, reason) for h, end, reason in ended if end in failing]
    for study_id in sorted({h.study_id for h, _ in failed}):
        faults.judge(connection, study_id)
    succeeded = {h.worker_id for h, end, _ in ended if end not in failing | {AttemptEnd.PREEMPTED}}
    # First, since it locks all workers in their order.
    roster.free_slots(connection, Counter(h.worker_id for h, _, _ in ended), succeeded)
    for h, reason in failed:
        roster.failed(connection, h.worker_id, h.started_at, reason, now)


def _keep_late(
    connection: Connection, requests: Sequence[ResultRequest], holds: Mapping[int, Held | Answer], now: Instant
) -> None:
    refused = {
        (item.trial_id, item.token): (request.worker_id, item, answer)
        for request in requests
        for item in request.trials
        if (answer := _refusal(holds[item.trial_id])) is not None
    }
    if not refused:
        return
    sent = {token for _, token in refused}
    leased = connection.execute(select(attempts.c.trial_id, attempts.c.token).where(attempts.c.token.in_(sent)))
    rows = [
        {
            "token": token,
            "trial_id": trial_id,
            "worker_id": late[0],
            "refused_because": late[2].detail,
            "result": late[1].model_dump(mode="json", exclude={"token"}),
            "received_at": now,
        }
        for trial_id, token in leased.all()
        if (late := refused.get((trial_id, token))) is not None
    ]
    insert_new(connection, late_results, rows)


def _refusal(held: Held | Answer) -> Answer | None:
    return held if isinstance(held, Answer) and held.status == 409 else None


def _answer(held: Held | Answer) -> Answer:
    if isinstance(held, Answer):
        return held
    return answer(held.trial_id, stop=held.stop_requested)


def answer(trial_id: int, *, stop: bool) -> Answer:
    """The answer to epochs that were stored."""
    return Answer(trial_id=trial_id, status=200, command="stop" if stop else "continue")


def _done(held: Held | Answer) -> Answer:
    """The answer to what ends a lease: there is nothing more to do for it."""
    return held if isinstance(held, Answer) else Answer(trial_id=held.trial_id, status=200, command="abandon")


def _store_epochs(connection: Connection, held: Sequence[tuple[TrialReport | TrialResult, Held]], now: Instant) -> None:
    insert_new(connection, epochs, [row for item, h in held for row in epoch_rows(item, h, now)])


def epoch_rows(item: TrialReport | TrialResult, leased: Leased, now: Instant) -> list[dict[str, Any]]:
    """The epochs of a message as rows. Raises InvalidMessage for an epoch that cannot be this trial's."""
    return [
        {
            "trial_id": leased.trial_id,
            "attempt": leased.attempt,
            "epoch": record.epoch,
            "value": _finite(_objective(item, record, leased)),
            "metrics": {name: _finite(value) for name, value in record.metrics.items()},
            "lr_first": record.lr_first,
            "lr_last": record.lr_last,
            "seconds": record.seconds,
            "reported_at": now,
        }
        for record in item.epochs
    ]


def _objective(item: TrialReport | TrialResult, record: EpochRecord, leased: Leased) -> float | None:
    where = f"trial {item.trial_id}, epoch {record.epoch}"
    if leased.phase == "range_test":
        raise InvalidMessage([FieldError("epochs", record.epoch, f"{where}: a range test has no epochs")])
    if record.epoch >= leased.board.definition.epochs:
        last = leased.board.definition.epochs - 1
        raise InvalidMessage([FieldError("epochs.epoch", record.epoch, f"{where}: the study's last epoch is {last}")])
    if leased.board.metric not in record.metrics:
        message = f"{where}: the study's objective {leased.board.metric!r} must be among the metrics of every epoch"
        raise InvalidMessage([FieldError("epochs.metrics", sorted(record.metrics), message)])
    return record.metrics[leased.board.metric]


def _result(connection: Connection, item: TrialResult, held: Held) -> dict[str, Any]:
    if item.model is not None and (held.phase != "confirm" or item.outcome != "completed"):
        message = f"only a completed trial of the confirm phase has a model that is kept; trial {item.trial_id} is"
        raise InvalidMessage([FieldError("model", item.model.address, f"{message} {item.outcome}, of {held.phase}")])
    result = _swept(item, held) if held.phase == "range_test" else _trained(connection, item, held)
    if item.outcome == "pruned" and not item.reason:
        result["reason"] = held.stop_reason
    return result


_RESULT = (
    "state",
    "reason",
    "value",
    "best_value",
    "best_epoch",
    "last_value",
    "last_epoch",
    "test_value",
    "test_value_best",
    "test_value_last",
    "test_best",
    "test_last",
    "range_curve",
    "model",
    "train_seconds",
    "steps_per_epoch",
    "finished_at",
)
_END_TRIAL = (
    update(trials)
    .where(trials.c.id == bindparam("trial"))
    .values({"lease_expires_at": None, **{column: bindparam(f"new_{column}") for column in _RESULT}})
)
_SCORED = (
    select(epochs.c.epoch, epochs.c.value)
    .where(epochs.c.trial_id == bindparam("trial"), epochs.c.attempt == bindparam("number"))
    .order_by(epochs.c.epoch)
)


def _finish(connection: Connection, item: TrialResult, held: Held, result: dict[str, Any], now: Instant) -> None:
    training = {"train_seconds": item.train_seconds, "steps_per_epoch": item.steps_per_epoch, "finished_at": now}
    values = {f"new_{column}": (result | training).get(column) for column in _RESULT} | {"trial": held.trial_id}
    attempt = queue.ended_attempt(held.trial_id, held.attempt, str(result["state"]), now, reason=result["reason"])
    if connection.dialect.name == "postgresql":
        connection.execute(_END_ALL, {**values, **attempt, "study": held.study_id})
    else:
        revision = history.advance(connection, held.study_id)
        connection.execute(_END_TRIAL.values(revision=bindparam("new_revision")), {**values, "new_revision": revision})
        connection.execute(queue.END_ATTEMPT, attempt)


def _end_all() -> Update:
    """The same three in one statement, which SQLite does not know."""
    advanced = history.ADVANCE.cte("advanced")
    revision = select(advanced.c.revision).scalar_subquery()
    return _END_TRIAL.values(revision=revision).add_cte(queue.END_ATTEMPT.cte("ended"))


_END_ALL = _end_all()


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
    at_best = held.board.definition.objective.at == "best_validation"
    value = run.best if at_best else run.last
    test_best = _test_value("test_best", item, held)
    test_last = _test_value("test_last", item, held)
    test_value = test_best if at_best else test_last
    outcome, reason = TrialState(item.outcome), item.reason
    if outcome == TrialState.COMPLETED and (value is None or (held.phase == "confirm" and test_value is None)):
        outcome, reason = TrialState.DIVERGED, f"{held.board.metric} was not finite at the epoch that counts"
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
        "model": item.model.model_dump() if item.model is not None and outcome == TrialState.COMPLETED else None,
    }


def _score(connection: Connection, item: TrialResult, held: Held) -> Score:
    rows = connection.execute(_SCORED, {"trial": held.trial_id, "number": held.attempt}).all()
    expected = rows[-1].epoch + 1 if rows else 0
    if item.outcome == "completed":
        ended_early = expected < held.board.definition.epochs and _may_end_early(connection, held)
        expected = max(expected, 1 if ended_early else held.board.definition.epochs)
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
    return score([(row.epoch, row.value) for row in rows], held.board.direction)


def _may_end_early(connection: Connection, held: Held) -> bool:
    if held.board.definition.early_stopping is not None:
        return True
    configuration = connection.execute(select(trials.c.configuration).where(trials.c.id == held.trial_id)).scalar_one()
    return schedule_class(configuration["schedule"]["type"]).stops_early


def _test_value(field: Literal["test_best", "test_last"], item: TrialResult, held: Held) -> float | None:
    scores = item.test_best if field == "test_best" else item.test_last
    name = held.board.metric.removeprefix("val_")
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
