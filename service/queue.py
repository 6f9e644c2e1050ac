"""The queue of trials: claim, renew, release, expire. Every statement that touches a lease is here.

A trial is leased under a token. The token stays good until the trial is leased anew: a worker that was
cut off for longer than its lease takes it up again with its next message, if nobody else has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, and_, cast, func, select, update

from service import history
from service.clock import SECOND, Instant
from service.database import insert_new
from service.tables import attempts, boards, studies, tasks, trials, workers
from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.protocol import Answer, Assignment, ClaimRequest, TrialRelease
from studies.tasks import Direction
from studies.trial import AttemptCounts, AttemptEnd, Phase, TrialState

WORKER_SILENCE_SECONDS = 90
"""A worker that was not heard of for this long is no longer counted on: its slots are not free slots."""


@dataclass(frozen=True)
class Held:
    """A trial as the sender of a message holds it; `live` is false where the lease has expired."""

    trial_id: int
    study_id: int
    token: str
    attempt: int
    worker_id: str
    phase: Phase
    live: bool
    counts: AttemptCounts
    stop_requested: bool
    metric: str
    direction: Direction
    definition: StudyDefinition


# --- claim


def announce(connection: Connection, request: ClaimRequest, now: Instant) -> None:
    """Note the worker, its free slots and its tasks. A claim that comes again only moves `last_seen_at`."""
    worker = request.worker
    if _leased_before(connection, request):
        seen(connection, worker.id, now)
        return
    row: dict[str, Any] = {
        "name": worker.name,
        "slots": worker.slots,
        "free_slots": request.slots,
        "backend": worker.backend,
        "versions": worker.versions,
        "tasks": sorted(task.name for task in request.tasks),
        "unavailable": request.unavailable,
        "last_seen_at": now,
    }
    changed = connection.execute(update(workers).where(workers.c.id == worker.id).values(**row))
    if changed.rowcount == 0:
        insert_new(connection, workers, [{"id": worker.id, "first_seen_at": now, **row}])
    known = {
        tuple(row)
        for row in connection.execute(
            select(tasks.c.name, tasks.c.fingerprint).where(tasks.c.name.in_([t.name for t in request.tasks]))
        )
    }
    fresh = [task for task in request.tasks if (task.name, task.fingerprint or "") not in known]
    insert_new(
        connection,
        tasks,
        [
            {
                "name": task.name,
                "fingerprint": task.fingerprint or "",
                "manifest": task.model_dump(mode="json"),
                "first_seen_at": now,
            }
            for task in fresh
        ],
    )


def claim(connection: Connection, request: ClaimRequest, now: Instant, lease: int) -> list[Assignment] | None:
    """Lease up to `request.slots` ready trials of the announced tasks to the worker, the longest ready first.

    Asked again with the same request id: the trials leased then, as far as the worker still holds them
    under that lease. None: nothing is ready, and nothing was leased under this request id before.
    """
    if not _leased_before(connection, request):
        leased = _lease_ready(connection, request, now, lease)
        if not leased:
            return None
        fingerprints = {task.name: task.fingerprint for task in request.tasks}
        connection.execute(
            attempts.insert(),
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
        connection.execute(
            update(workers)
            .where(workers.c.id == request.worker.id)
            .values(free_slots=workers.c.free_slots - len(leased))
        )
    return _assignments(connection, request, now)


def _leased_before(connection: Connection, request: ClaimRequest) -> bool:
    return connection.execute(select(attempts.c.trial_id).where(_of_request(request)).limit(1)).first() is not None


def _of_request(request: ClaimRequest) -> ColumnElement[bool]:
    """The attempts that this request was leased; a request id belongs to its worker."""
    return and_(attempts.c.request_id == request.request_id, attempts.c.worker_id == request.worker.id)


def any_ready(connection: Connection, request: ClaimRequest) -> bool:
    """Whether a trial is ready that this claim could have."""
    return connection.execute(_ready(request).limit(1)).first() is not None


def _ready(request: ClaimRequest) -> Select[tuple[int]]:
    return select(trials.c.id).where(
        trials.c.state == TrialState.READY,
        trials.c.task.in_([task.name for task in request.tasks]),
        trials.c.study_id.in_(select(studies.c.id).where(studies.c.state == "running")),
    )


def _lease_ready(connection: Connection, request: ClaimRequest, now: Instant, lease: int) -> Sequence[Any]:
    ready = _ready(request).order_by(trials.c.ready_at, trials.c.id).limit(request.slots)
    ready = ready.with_for_update(skip_locked=True)
    prefix = secrets.token_hex(12)
    return connection.execute(
        update(trials)
        .where(trials.c.id.in_(ready), trials.c.state == TrialState.READY)
        .values(
            state=TrialState.RUNNING,
            attempt=trials.c.attempt + 1,
            token=prefix + "-" + cast(trials.c.id, String),
            worker_id=request.worker.id,
            lease_expires_at=now + lease,
            started_at=func.coalesce(trials.c.started_at, now),
        )
        .returning(trials.c.id, trials.c.task, trials.c.attempt, trials.c.token)
    ).all()


def _assignments(connection: Connection, request: ClaimRequest, now: Instant) -> list[Assignment]:
    rows = connection.execute(
        select(
            trials,
            boards.c.metric,
            boards.c.direction,
            studies.c.id.label("study"),
            studies.c.name.label("study_name"),
            studies.c.definition,
        )
        .join(attempts, and_(attempts.c.trial_id == trials.c.id, attempts.c.attempt == trials.c.attempt))
        .join(boards, and_(boards.c.study_id == trials.c.study_id, boards.c.task == trials.c.task))
        .join(studies, studies.c.id == trials.c.study_id)
        .where(_of_request(request), trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.id)
    ).all()
    assignments = []
    for row in rows:
        definition = read_definition(row.definition)
        configuration = Configuration.model_validate(row.configuration)
        assignments.append(
            Assignment(
                trial_id=row.id,
                token=row.token,
                attempt=row.attempt,
                lease_seconds=max(row.lease_expires_at - now, 0) / SECOND,
                study=row.study_name,
                task=row.task,
                schedule=str(configuration.schedule["type"]),
                phase=row.phase,
                number=row.number,
                seed=row.seed,
                epochs=definition.epochs,
                configuration=configuration,
                metric=row.metric,
                direction=row.direction,
                at=definition.objective.at,
                early_stopping=definition.early_stopping,
                score_on_test=row.phase == "confirm",
            )
        )
    return assignments


# --- renew


def seen(connection: Connection, worker_id: str, now: Instant) -> None:
    """Note that the worker is alive."""
    connection.execute(update(workers).where(workers.c.id == worker_id).values(last_seen_at=now))


def hold(connection: Connection, tokens: dict[int, str]) -> dict[int, Held | Answer]:
    """What the sender of a message holds: by trial, the lease it may act under, or the answer that refuses it.

    tokens: trial id -> the token the message carries. Locks the trials until the transaction ends.
    """
    rows = {
        row.id: row
        for row in connection.execute(
            select(
                trials.c.id,
                trials.c.study_id,
                trials.c.state,
                trials.c.token,
                trials.c.attempt,
                trials.c.worker_id,
                trials.c.phase,
                trials.c.crashed,
                trials.c.lost,
                trials.c.preempted,
                trials.c.stop_requested,
                attempts.c.end,
                boards.c.metric,
                boards.c.direction,
                studies.c.definition,
            )
            .outerjoin(attempts, and_(attempts.c.trial_id == trials.c.id, attempts.c.attempt == trials.c.attempt))
            .join(boards, and_(boards.c.study_id == trials.c.study_id, boards.c.task == trials.c.task))
            .join(studies, studies.c.id == trials.c.study_id)
            .where(trials.c.id.in_(list(tokens)))
            .order_by(trials.c.id)  # always locked in the same order
            .with_for_update(of=trials)
        )
    }
    return {trial_id: _held(trial_id, token, rows.get(trial_id)) for trial_id, token in tokens.items()}


def _held(trial_id: int, token: str, row: Any) -> Held | Answer:
    if row is None:
        return _stale(trial_id, "there is no such trial")
    if row.token is None or not secrets.compare_digest(row.token.encode(), token.encode()):
        return _stale(trial_id, "the lease is stale: the trial was leased anew since, or never under this token")
    expired = row.end == AttemptEnd.LOST and row.state == TrialState.READY
    if (row.end is None and row.state == TrialState.RUNNING) or expired:
        return Held(
            trial_id=trial_id,
            study_id=row.study_id,
            token=token,
            attempt=row.attempt,
            worker_id=row.worker_id,
            phase=row.phase,
            live=not expired,
            counts=AttemptCounts(crashed=row.crashed, lost=row.lost, preempted=row.preempted),
            stop_requested=row.stop_requested,
            metric=row.metric,
            direction=row.direction,
            definition=read_definition(row.definition),
        )
    if row.end == AttemptEnd.CANCELLED:
        return _stale(trial_id, "the study was cancelled")
    if row.end == AttemptEnd.LOST:
        return _stale(trial_id, f"the lease expired, and the trial is {row.state}")
    # Ended by its holder under this very token: a message that came twice, or late. Nothing is left to do.
    return Answer(trial_id=trial_id, status=200, command="abandon", detail=f"the attempt has ended: {row.end}")


def _stale(trial_id: int, detail: str) -> Answer:
    return Answer(trial_id=trial_id, status=409, command="abandon", detail=detail)


def renew(connection: Connection, held: Sequence[Held], now: Instant, lease: int) -> None:
    """Give the leases their full length from now; take up expired ones that nobody has had since."""
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
    free_slot(connection, held.worker_id)


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
        .where(trials.c.state == TrialState.RUNNING, trials.c.lease_expires_at < now)
        .order_by(trials.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        counts = AttemptCounts(crashed=row.crashed, lost=row.lost + 1, preempted=row.preempted)
        reason = f"nothing was heard of worker {row.worker_id} until the lease expired"
        end_attempt(connection, row.id, row.attempt, AttemptEnd.LOST, now, reason=reason)
        _back_or_failed(connection, row.id, row.study_id, counts, now, f"lost {counts.lost} times; at last: {reason}")
    return len(rows)


def grant_grace(connection: Connection, now: Instant, lease: int) -> None:
    """After an outage of the service, give every lease its full length from now: workers could not renew."""
    connection.execute(
        update(trials)
        .where(trials.c.state == TrialState.RUNNING, trials.c.lease_expires_at < now + lease)
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
    connection.execute(
        update(attempts)
        .where(attempts.c.trial_id == trial_id, attempts.c.attempt == attempt)
        .values(ended_at=now, end=str(end), reason=reason, log_end=log_end)
    )


def free_slot(connection: Connection, worker_id: str) -> None:
    """One more slot of the worker has nothing to do: the director may fill in a trial for it already."""
    connection.execute(
        update(workers)
        .where(workers.c.id == worker_id, workers.c.free_slots < workers.c.slots)
        .values(free_slots=workers.c.free_slots + 1)
    )


def cancel_open(connection: Connection, study_id: int, now: Instant) -> None:
    """End every open trial of a study; running ones hear of it with their next message."""
    of_study = (trials.c.study_id == study_id) & trials.c.finished_at.is_(None)
    running = select(trials.c.id).where(of_study, trials.c.state == TrialState.RUNNING)
    connection.execute(
        update(attempts)
        .where(attempts.c.trial_id.in_(running), attempts.c.end.is_(None))
        .values(ended_at=now, end=str(AttemptEnd.CANCELLED), reason="the study was cancelled")
    )
    connection.execute(
        update(trials)
        .where(of_study)
        .values(
            state=TrialState.CANCELLED,
            lease_expires_at=None,
            finished_at=now,
            reason="the study was cancelled",
            revision=history.advance(connection, study_id),
        )
    )
