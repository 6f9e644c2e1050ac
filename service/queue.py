"""The queue of trials: claim, renew, release, expire. Every statement that touches a lease is here.

A trial is leased under a token. The token stays good until the trial is leased anew: a worker that was
cut off for longer than its lease takes it up again with its next message, if nobody else has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    String,
    and_,
    bindparam,
    cast,
    exists,
    func,
    not_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from service import history, roster
from service.clock import SECOND, Instant
from service.database import insert
from service.known import Known, Leased
from service.roster import Asking
from service.tables import attempts, boards, requirements, state_is, studies, trials
from studies.configuration import Configuration
from studies.protocol import Answer, Assignment, ClaimRequest, TrialRelease
from studies.trial import OPEN, AttemptCounts, AttemptEnd, Phase, TrialState

RENEWED_BELOW = 0.75
"""A lease is renewed when less than this part of it is left: most reports then write no row but their epochs."""


@dataclass(frozen=True)
class Held(Leased):
    """A trial as the sender of a message holds it; `live` is false where the lease has expired."""

    study_id: int
    token: str
    worker_id: str
    live: bool
    expires_at: Instant | None
    started_at: Instant
    counts: AttemptCounts
    stop_requested: bool
    stop_reason: str


# --- claim


@dataclass(frozen=True)
class Claimed:
    """What a claim has got. trials: None if it is worth asking again; barred: it is not, for now."""

    trials: list[Assignment] | None
    barred: bool = False


def claim(connection: Connection, known: Known, request: ClaimRequest, now: Instant, lease: int) -> Claimed:
    """Lease up to `request.slots` ready trials of the announced tasks to the worker, and note what it announces.

    Trials of the studies of the highest priority go first, among these of the study that has the fewest running.
    Asked again with the same request id: the trials leased then, as far as the worker still holds them
    under that lease.
    """
    arrived = roster.arrive(connection, request, now)
    if _leased_before(connection, request):
        roster.seen(connection, request.worker.id, now)
        rows = connection.execute(_STILL_HELD, _of_request(request))
        return Claimed([_assignment(connection, known, row, now) for row in rows.all()])
    leased = [] if arrived.barred else _lease_ready(connection, request, now, lease)
    roster.announce(connection, request, request.slots - len(leased), now, known=arrived.known)
    if not leased:
        return Claimed(None, arrived.barred)
    fingerprints = {task.name: task.fingerprint for task in request.tasks}
    insert(
        connection,
        attempts,
        [
            {
                "trial_id": row.id,
                "attempt": row.attempt,
                "token": row.token,
                "request_id": request.request_id,
                "worker_id": request.worker.id,
                "fingerprint": fingerprints[row.task],
                "started_at": now,
            }
            for row in leased
        ],
    )
    return Claimed([_assignment(connection, known, row, now) for row in sorted(leased, key=lambda row: row.id)])


def _leased_before(connection: Connection, request: ClaimRequest) -> bool:
    return connection.execute(_LEASED_BEFORE, _of_request(request)).first() is not None


def _of_request(request: ClaimRequest) -> dict[str, str]:
    """The attempts that this request was leased; a request id belongs to its worker."""
    return {"request": request.request_id, "worker": request.worker.id}


_OF_REQUEST = and_(attempts.c.request_id == bindparam("request"), attempts.c.worker_id == bindparam("worker"))
_LEASED_BEFORE = select(attempts.c.trial_id).where(_OF_REQUEST).limit(1)


@dataclass(frozen=True)
class Group:
    """Ready trials that the same claims may have: how many, and what a worker needs for them."""

    task: tuple[str, str]
    labels: frozenset[str]
    number: int

    def suits(self, asking: Asking) -> bool:
        """Whether a claim may have these."""
        return self.task in asking.tasks and self.labels <= asking.labels


def ready_groups(connection: Connection) -> list[Group]:
    """All ready trials of studies that hand trials out, counted by what a worker needs for them."""
    rows = connection.execute(_READY_GROUPS).all()
    labels = required_labels(connection, {row.study_id for row in rows if row.has_requirements})
    return [Group((row.task, row.fingerprint or ""), labels.get(row.study_id, frozenset()), row.number) for row in rows]


def required_labels(connection: Connection, study_ids: Collection[int]) -> dict[int, frozenset[str]]:
    """What studies ask of workers, as `key=value`; those that ask nothing are left out."""
    if not study_ids:
        return {}
    asked: dict[int, set[str]] = {}
    for row in connection.execute(select(requirements).where(requirements.c.study_id.in_(study_ids))):
        asked.setdefault(row.study_id, set()).add(row.label)
    return {study_id: frozenset(labels) for study_id, labels in asked.items()}


def _ready_trials() -> FromClause:
    return trials.join(studies, studies.c.id == trials.c.study_id).join(
        boards, and_(boards.c.study_id == trials.c.study_id, boards.c.task == trials.c.task)
    )


def _is_ready() -> ColumnElement[bool]:
    # A draining study has no trials left but those that ran before; they may be run again.
    return and_(state_is(TrialState.READY), studies.c.state.in_(["running", "draining"]))


def _lease_ready(connection: Connection, request: ClaimRequest, now: Instant, lease: int) -> Sequence[Any]:
    """Lease the trials whose turn it is, in one statement; trials that others are just leasing are passed over."""
    asking = Asking.of(request)
    return connection.execute(
        _LEASE_READY,
        {
            "announced": sorted(asking.tasks),
            "labels": sorted(asking.labels),
            "slots": request.slots,
            "prefix": secrets.token_hex(12) + "-",
            "worker": request.worker.id,
            "now": now,
            "expires": now + lease,
        },
    ).all()


_ASSIGNED = (
    trials.c.id,
    trials.c.study_id,
    trials.c.task,
    trials.c.token,
    trials.c.attempt,
    trials.c.lease_expires_at,
    trials.c.phase,
    trials.c.number,
    trials.c.seed,
    trials.c.configuration,
)
_STILL_HELD = (
    select(*_ASSIGNED)
    .join(attempts, and_(attempts.c.trial_id == trials.c.id, attempts.c.attempt == trials.c.attempt))
    .where(_OF_REQUEST, state_is(TrialState.RUNNING))
    .order_by(trials.c.id)
)


def _lease_statement() -> ReturningUpdate[Any]:
    running = (
        select(trials.c.study_id, func.count().label("number"))
        .where(state_is(TrialState.RUNNING))
        .group_by(trials.c.study_id)
        .cte("running")
    )
    unmet = select(requirements.c.label).where(
        requirements.c.study_id == trials.c.study_id,
        requirements.c.label.not_in(bindparam("labels", expanding=True)),
    )
    met = tuple_(boards.c.task, func.coalesce(boards.c.fingerprint, ""))
    place = func.row_number().over(partition_by=trials.c.study_id, order_by=(trials.c.ready_at, trials.c.id))
    turns = (
        select(trials.c.id, studies.c.priority, (place + func.coalesce(running.c.number, 0)).label("turn"))
        .select_from(_ready_trials().outerjoin(running, running.c.study_id == trials.c.study_id))
        .where(_is_ready(), met.in_(bindparam("announced", expanding=True)), not_(unmet.exists()))
        .cte("turns")
    )
    chosen = (
        select(trials.c.id)
        .join(turns, turns.c.id == trials.c.id)
        .where(state_is(TrialState.READY))
        .order_by(turns.c.priority.desc(), turns.c.turn, trials.c.ready_at, trials.c.id)
        .limit(bindparam("slots"))
        .with_for_update(of=trials, skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED", dialect="postgresql")  # evaluated once, so that it locks what it returns
    )
    return (
        update(trials)
        .where(trials.c.id.in_(select(chosen.c.id)), state_is(TrialState.READY))
        .values(
            state=TrialState.RUNNING,
            attempt=trials.c.attempt + 1,
            token=bindparam("prefix", type_=String) + cast(trials.c.id, String),
            worker_id=bindparam("worker"),
            lease_expires_at=bindparam("expires"),
            started_at=func.coalesce(trials.c.started_at, bindparam("now", type_=BigInteger)),
            stop_requested=False,
            stop_reason="",
        )
        .returning(*_ASSIGNED)
    )


# Statements of the busiest routes are made once: to make one takes SQLAlchemy longer than to run it.
_LEASE_READY = _lease_statement()
_READY_GROUPS = (
    select(
        trials.c.study_id,
        trials.c.task,
        boards.c.fingerprint,
        exists().where(requirements.c.study_id == trials.c.study_id).label("has_requirements"),
        func.count().label("number"),
    )
    .select_from(_ready_trials())
    .where(_is_ready())
    .group_by(trials.c.study_id, trials.c.task, boards.c.fingerprint)
)


def _assignment(connection: Connection, known: Known, row: Any, now: Instant) -> Assignment:
    board = known.board(connection, row.study_id, row.task)
    known.note(row.token, Leased(row.id, row.attempt, row.phase, board))
    configuration = Configuration.model_validate(row.configuration)
    return Assignment(
        trial_id=row.id,
        token=row.token,
        attempt=row.attempt,
        lease_seconds=max(row.lease_expires_at - now, 0) / SECOND,
        study=board.study,
        task=row.task,
        schedule=str(configuration.schedule["type"]),
        phase=row.phase,
        number=row.number,
        seed=row.seed,
        epochs=board.definition.epochs,
        configuration=configuration,
        metric=board.metric,
        direction=board.direction,
        at=board.definition.objective.at,
        early_stopping=board.definition.early_stopping,
        score_on_test=row.phase == "confirm",
    )


# --- renew


def hold(
    connection: Connection, known: Known, tokens: dict[int, str], *, lock: bool = True
) -> dict[int, Held | Answer]:
    """What the sender of a message holds: by trial, the lease it may act under, or the answer that refuses it.

    tokens: trial id -> the token the message carries. lock: keep the trials as they are until the transaction ends.
    """
    if lock:
        lock_trials(connection, tokens)
    rows = {row.id: row for row in connection.execute(_HOLD, {"ids": list(tokens)})}
    return {
        trial_id: _held(connection, known, trial_id, token, rows.get(trial_id)) for trial_id, token in tokens.items()
    }


def lock_trials(connection: Connection, ids: Collection[int]) -> None:
    """Lock trials until the transaction ends.

    A statement of its own: one that waits for a row joins it, as it is then, with attempts as they were before.
    """
    connection.execute(_LOCK, {"ids": list(ids)}).all()


_LOCK = (
    select(trials.c.id)
    .where(trials.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(trials.c.id)  # always locked in the same order
    .with_for_update()
)
_HOLD = (
    select(
        trials.c.id,
        trials.c.study_id,
        trials.c.task,
        trials.c.state,
        trials.c.token,
        trials.c.attempt,
        trials.c.worker_id,
        trials.c.phase,
        trials.c.lease_expires_at,
        trials.c.crashed,
        trials.c.lost,
        trials.c.preempted,
        trials.c.stop_requested,
        trials.c.stop_reason,
        attempts.c.end,
        attempts.c.started_at,
    )
    .outerjoin(attempts, and_(attempts.c.trial_id == trials.c.id, attempts.c.attempt == trials.c.attempt))
    .where(trials.c.id.in_(bindparam("ids", expanding=True)))
)


def _held(connection: Connection, known: Known, trial_id: int, token: str, row: Any) -> Held | Answer:
    if row is None:
        return _stale(trial_id, "there is no such trial")
    if row.token is None or not secrets.compare_digest(row.token.encode(), token.encode()):
        return _stale(trial_id, "the lease is stale: the trial was leased anew since, or never under this token")
    expired = row.end == AttemptEnd.LOST and row.state == TrialState.READY
    if (row.end is None and row.state == TrialState.RUNNING) or expired:
        leased = Leased(trial_id, row.attempt, row.phase, known.board(connection, row.study_id, row.task))
        known.note(token, leased)
        return Held(
            **vars(leased),
            study_id=row.study_id,
            token=token,
            worker_id=row.worker_id,
            live=not expired,
            expires_at=row.lease_expires_at,
            started_at=row.started_at,
            counts=AttemptCounts(crashed=row.crashed, lost=row.lost, preempted=row.preempted),
            stop_requested=row.stop_requested,
            stop_reason=row.stop_reason,
        )
    if row.end == AttemptEnd.CANCELLED:
        return _stale(trial_id, "the study was cancelled", unwanted=True)
    if row.end == AttemptEnd.LOST:
        return _stale(trial_id, f"the lease expired, and the trial is {row.state}")
    # Ended by its holder under this very token: a message that came twice, or late. Nothing is left to do.
    return Answer(trial_id=trial_id, status=200, command="abandon", detail=f"the attempt has ended: {row.end}")


def _stale(trial_id: int, detail: str, *, unwanted: bool = False) -> Answer:
    return Answer(trial_id=trial_id, status=409, command="abandon", detail=detail, unwanted=unwanted)


def due_for_renewal(held: Held, now: Instant, lease: int) -> bool:
    """Whether a lease is to be renewed by a message that comes now: it has run for a while, or out."""
    return not held.live or held.expires_at is None or held.expires_at < renewal_due_before(now, lease)


def renewal_due_before(now: Instant, lease: int) -> Instant:
    """Leases that expire before this are to be renewed by a message that comes now."""
    return now + int(RENEWED_BELOW * lease)


def renew(connection: Connection, held: Sequence[Held], now: Instant, lease: int) -> None:
    """Give leases, whose trials are locked, their full length from now; take up expired ones nobody has had since."""
    if not held:
        return
    connection.execute(
        update(trials)
        .where(trials.c.id.in_([h.trial_id for h in held]))
        .values(state=TrialState.RUNNING, lease_expires_at=now + lease)
    )
    for h in held:
        if not h.live:  # it was counted as lost, and goes on after all: take the count back
            connection.execute(
                update(attempts)
                .where(attempts.c.trial_id == h.trial_id, attempts.c.attempt == h.attempt)
                .values(ended_at=None, end=None, reason="")
            )
            connection.execute(update(trials).where(trials.c.id == h.trial_id).values(lost=trials.c.lost - 1))


# --- release


def release(connection: Connection, item: TrialRelease, held: Held, now: Instant) -> None:
    """Hand a trial back: preempted attempts are free; a trial that crashed too often is failed.

    A trial whose lease has expired is back already; how its attempt ended is known better now.
    """
    end = AttemptEnd(item.cause)
    counts = AttemptCounts(
        crashed=held.counts.crashed + (end == AttemptEnd.CRASHED),
        lost=held.counts.lost - (not held.live),
        preempted=held.counts.preempted + (end == AttemptEnd.PREEMPTED),
    )
    end_attempt(connection, held.trial_id, held.attempt, end, now, reason=item.reason, log_end=item.log_end)
    _back_or_failed(connection, held.trial_id, held.study_id, counts, now, item.reason)


def expire(connection: Connection, now: Instant) -> int:
    """Put trials whose lease has run out back into the queue, or fail those lost too often; how many there were."""
    rows = connection.execute(
        select(
            trials.c.id,
            trials.c.study_id,
            trials.c.attempt,
            trials.c.worker_id,
            trials.c.crashed,
            trials.c.lost,
            trials.c.preempted,
        )
        .where(state_is(TrialState.RUNNING), trials.c.lease_expires_at < now)
        .order_by(trials.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in sorted(rows, key=lambda row: row.study_id):  # studies, too, are always locked in the same order
        counts = AttemptCounts(crashed=row.crashed, lost=row.lost + 1, preempted=row.preempted)
        reason = f"nothing was heard of worker {row.worker_id} until the lease expired"
        end_attempt(connection, row.id, row.attempt, AttemptEnd.LOST, now, reason=reason)
        _back_or_failed(connection, row.id, row.study_id, counts, now, f"lost {counts.lost} times; at last: {reason}")
    return len(rows)


def grant_grace(connection: Connection, now: Instant, lease: int) -> None:
    """After an outage of the service, give every lease its full length from now: workers could not renew."""
    connection.execute(
        update(trials)
        .where(state_is(TrialState.RUNNING), trials.c.lease_expires_at < now + lease)
        .values(lease_expires_at=now + lease)
    )


def _back_or_failed(
    connection: Connection, trial_id: int, study_id: int, counts: AttemptCounts, now: Instant, reason: str
) -> None:
    state = counts.verdict()
    values: dict[str, Any] = {
        "state": state,
        "lease_expires_at": None,
        "crashed": counts.crashed,
        "lost": counts.lost,
        "preempted": counts.preempted,
    }
    if state == TrialState.READY:
        values["ready_at"] = now
    else:
        values |= {"finished_at": now, "reason": reason, "revision": history.advance(connection, study_id)}
    connection.execute(update(trials).where(trials.c.id == trial_id).values(**values))


END_ATTEMPT = (
    update(attempts)
    .where(attempts.c.trial_id == bindparam("of_trial"), attempts.c.attempt == bindparam("of_attempt"))
    .values(ended_at=bindparam("now"), end=bindparam("how"), reason=bindparam("why"), log_end=bindparam("log"))
)


def end_attempt(
    connection: Connection,
    trial_id: int,
    attempt: int,
    end: str,
    now: Instant,
    *,
    reason: str = "",
    log_end: str = "",
) -> None:
    """Note how an attempt ended."""
    connection.execute(END_ATTEMPT, ended_attempt(trial_id, attempt, end, now, reason=reason, log_end=log_end))


def ended_attempt(
    trial_id: int, attempt: int, end: str, now: Instant, *, reason: str = "", log_end: str = ""
) -> dict[str, Any]:
    """The values of END_ATTEMPT."""
    return {"of_trial": trial_id, "of_attempt": attempt, "now": now, "how": str(end), "why": reason, "log": log_end}


def lock_open(connection: Connection, study_id: int) -> None:
    """Lock the open trials of a study, as whoever ends a trial does before it locks the study's row."""
    of_study = (trials.c.study_id == study_id) & trials.c.finished_at.is_(None)
    connection.execute(select(trials.c.id).where(of_study).order_by(trials.c.id).with_for_update()).all()


def cancel(
    connection: Connection,
    study_id: int,
    now: Instant,
    reason: str,
    *,
    states: Collection[TrialState] = OPEN,
    phases: Collection[Phase] = ("range_test", "search", "confirm"),
) -> int:
    """Cancel the open trials of a study; running ones hear of it with their next message. How many there were.

    states, phases: of these alone.
    """
    of_study = and_(
        trials.c.study_id == study_id,
        trials.c.finished_at.is_(None),
        state_is(*sorted(states)),
        trials.c.phase.in_(sorted(phases)),
    )
    running = select(trials.c.id).where(of_study, state_is(TrialState.RUNNING))
    connection.execute(
        update(attempts)
        .where(attempts.c.trial_id.in_(running), attempts.c.end.is_(None))
        .values(ended_at=now, end=str(AttemptEnd.CANCELLED), reason=reason)
    )
    ended = connection.execute(
        update(trials)
        .where(of_study)
        .values(
            state=TrialState.CANCELLED,
            lease_expires_at=None,
            finished_at=now,
            reason=reason,
            revision=history.advance(connection, study_id),
        )
    )
    return ended.rowcount
