"""The process beside the web: expires leases, moves studies from phase to phase, fills planned trials in.

One director leads at a time. Leading is a row in the database with an epoch; every change of leader has
a higher one, and each of the director's transactions checks that its epoch still holds, so that one
that was thought dead cannot write. All that it knows can be read from the tables again at any time.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, or_, select, update
from sqlalchemy.exc import DBAPIError

from service import filling, phases, pruning, queue
from service.clock import SECOND, Clock, Instant, system_clock
from service.database import ChangeSignal, insert_new, is_away, reading, writing
from service.lanes import Lane, LaneKey, Sampled
from service.pruning import PRUNE_SECONDS, Pruning
from service.registry import announced_manifests, objective
from service.settings import Settings
from service.sharing import Planned
from service.tables import boards, director, studies, trials
from studies.definition import StudyDefinition, read_definition
from studies.trial import TrialState

log = logging.getLogger(__name__)

BUSY_POLL_SECONDS = 0.005
"""How often the director looks whether anything changed while it does; a look costs microseconds."""
POLL_SECONDS = 0.02
"""How often it looks while nothing does."""
ROUTINE_SECONDS = 1.0
"""How often it does its whole round even so: leases expire, limits are reached, its own lead must be renewed."""
LEAD_SECONDS = 5.0
"""How long a silent director is still taken for the leader."""
GAP_SECONDS = 1.0
"""If nobody led for longer, workers perhaps could not renew their leases: they get their full length again."""


class LeadLost(Exception):
    """Another director leads: what this one knows may be out of date."""


@dataclass(frozen=True)
class _Open:
    """A study that has not ended, as it was when last looked at."""

    revision: int
    definition: StudyDefinition


class Director:
    """One director over one database. `step` does what is due; `run` does so until it is told to stop."""

    def __init__(self, engine: Engine, clock: Clock = system_clock, lease: int = Settings().lease) -> None:
        self._engine = engine
        self._clock = clock
        self._lease = lease
        self._name = secrets.token_hex(8)
        self._epoch: int | None = None
        self._was_away = False
        self._routine_at = 0
        self._lanes: dict[LaneKey, Lane] = {}
        self._advanced: dict[int, _Open] = {}
        self._pruning = Pruning()
        self._prune_at = 0

    def run(self, stop: threading.Event) -> None:
        """Direct until told to stop. A busy or absent database is waited for, any other error ends it."""
        signal = ChangeSignal(self._engine)
        try:
            while not stop.is_set():
                wait = POLL_SECONDS
                try:
                    if signal.changed():
                        self.step(routine=self._clock() >= self._routine_at)
                        wait = BUSY_POLL_SECONDS
                    elif self._clock() >= self._routine_at:
                        self.step()
                except Exception as error:
                    if not is_away(error):
                        raise
                    log.warning("the database is busy or away, trying again: %s", error)
                    self._was_away = True
                    self._forget_what_was_read()  # what was proposed was perhaps not written
                    wait = ROUTINE_SECONDS
                stop.wait(wait)
            self.resign()
        finally:
            signal.close()

    def step(self, *, routine: bool = True) -> None:
        """Do what is due now: lead, learn of tasks, advance phases, fill in; in a routine step all the rest, too."""
        now = self._clock()
        if not self._lead(now):
            self._routine_at = now + int(ROUTINE_SECONDS * SECOND)
            return
        try:
            if routine:
                self._routine_at = now + int(ROUTINE_SECONDS * SECOND)
                self._expire(now)
                self._close_searches(now)
            self._resolve_tasks(now, routine=routine)
            self._advance_phases(now)
            self._fill(now)
            self._prune(now)
        except LeadLost:
            log.warning("another director has taken over")
            self._forget()

    def resign(self) -> None:
        """Let another director lead at once; if the database is away, another one leads soon even so."""
        if self._epoch is None:
            return
        try:
            with writing(self._engine) as connection:
                connection.execute(
                    update(director).where(director.c.epoch == self._epoch).values(expires_at=self._clock())
                )
        except DBAPIError as error:
            log.warning("the database is busy or away, resigning without saying so: %s", error)
        self._forget()

    # --- leading

    def _lead(self, now: Instant) -> bool:
        expires_at = now + int(LEAD_SECONDS * SECOND)
        with reading(self._engine) as connection:
            row = connection.execute(select(director)).first()
        if self._epoch is not None and row is not None and row.epoch == self._epoch:
            if row.expires_at - now > int((LEAD_SECONDS - ROUTINE_SECONDS) * SECOND) and not self._was_away:
                return True
        elif row is not None and row.expires_at > now:
            self._forget()
            return False
        with writing(self._engine) as connection:
            insert_new(connection, director, [{"id": 1, "epoch": 0, "holder": "", "expires_at": now}])
            row = connection.execute(select(director).with_for_update()).one()
            taken_over = row.epoch != self._epoch
            if taken_over:
                if row.expires_at > now:
                    return False
                self._forget()
                self._epoch = row.epoch + 1
                log.info("leading, epoch %d", self._epoch)
            if self._was_away or (taken_over and now - row.expires_at > int(GAP_SECONDS * SECOND)):
                queue.grant_grace(connection, now, self._lease)
            connection.execute(update(director).values(epoch=self._epoch, holder=self._name, expires_at=expires_at))
        self._was_away = False
        return True

    def _forget(self) -> None:
        self._epoch = None
        self._forget_what_was_read()

    def _forget_what_was_read(self) -> None:
        self._lanes.clear()
        self._advanced.clear()
        self._pruning.forget()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that only the leader can commit."""
        with writing(self._engine) as connection:
            epoch = connection.execute(select(director.c.epoch).with_for_update(read=True)).scalar()
            if epoch != self._epoch:
                raise LeadLost
            yield connection

    # --- expiring, and limits

    def _expire(self, now: Instant) -> None:
        with reading(self._engine) as connection:
            due = connection.execute(
                select(func.count()).where(trials.c.state == TrialState.RUNNING, trials.c.lease_expires_at < now)
            ).scalar_one()
        if due:
            with self._writing() as connection:
                expired = queue.expire(connection, now)
            log.info("%d leases expired; their trials wait for another worker", expired)

    def _close_searches(self, now: Instant) -> None:
        """End the searches whose deadline has passed, or whose training time is spent."""
        with reading(self._engine) as connection:
            reached = phases.limits_reached(connection, now)
        for study_id, reason in reached.items():
            with self._writing() as connection:
                phases.close_search(connection, study_id, reason, now)
            log.info("the search of study %d is ended early: %s", study_id, reason)

    # --- tasks

    def _resolve_tasks(self, now: Instant, *, routine: bool) -> None:
        """Give boards their metric and their fingerprint once a worker has announced their task."""
        unknown = (
            select(boards.c.study_id, boards.c.task, boards.c.metric, studies.c.definition)
            .join(studies, studies.c.id == boards.c.study_id)
            .where(or_(boards.c.metric.is_(None), boards.c.fingerprint.is_(None)), studies.c.finished_at.is_(None))
        )
        with reading(self._engine) as connection:
            rows = connection.execute(unknown).all()
            if not rows and not routine:
                return
            nameless = [row for row in rows if row.metric is None]
            manifests = announced_manifests(connection, [row.task for row in nameless]) if nameless else {}
        if manifests:
            with self._writing() as connection:
                for row in nameless:
                    if row.task in manifests:
                        connection.execute(
                            update(boards)
                            .where(boards.c.study_id == row.study_id, boards.c.task == row.task)
                            .values(**objective(read_definition(row.definition), manifests[row.task]))
                        )
        with reading(self._engine) as connection:
            fingerprints = filling.unpinned(connection, now)
        if fingerprints:
            with self._writing() as connection:
                filling.pin(connection, fingerprints)

    # --- phases

    def _advance_phases(self, now: Instant) -> None:
        """Move on the studies of which a trial has ended, or whose state was changed, since they were looked at."""
        with reading(self._engine) as connection:
            revisions = {
                row.id: row.revision
                for row in connection.execute(
                    select(studies.c.id, studies.c.revision).where(studies.c.finished_at.is_(None))
                )
            }
            self._lanes = {key: lane for key, lane in self._lanes.items() if key[0] in revisions}
            self._advanced = {i: seen for i, seen in self._advanced.items() if i in revisions}
            due: dict[int, StudyDefinition] = {}
            for study_id, revision in revisions.items():
                seen = self._advanced.get(study_id)
                if seen is not None and seen.revision == revision:
                    continue
                definition = _definition(connection, study_id) if seen is None else seen.definition
                if phases.is_due(connection, study_id, definition):
                    due[study_id] = definition
                else:
                    self._advanced[study_id] = _Open(revision, definition)
        for study_id, definition in due.items():
            with self._writing() as connection:
                still_open = select(studies.c.name).where(studies.c.id == study_id, studies.c.finished_at.is_(None))
                row = connection.execute(still_open.with_for_update()).first()
                if row is None:
                    continue  # cancelled since: its trials have ended, but not by being run
                if phases.advance(connection, study_id, definition, now):
                    log.info("study %s is finished", row.name)
            self._advanced[study_id] = _Open(revisions[study_id], definition)

    # --- filling in

    def _fill(self, now: Instant) -> None:
        """Fill planned trials in: as many ready ones as there are free announced slots, no more."""
        failures: dict[int, str] = {}
        filled: list[tuple[Planned, Sampled | None]] = []
        with reading(self._engine) as connection:
            for trial in filling.wanted(connection, now):
                try:
                    filled.append((trial, self._parameters(connection, trial)))
                except Exception as error:
                    if is_away(error):
                        raise
                    log.exception("study %d cannot be sampled", trial.study_id)
                    failures[trial.study_id] = f"{type(error).__name__}: {error}"
        for study_id, reason in failures.items():
            self._pause(study_id, f"its parameters cannot be sampled ({reason})")
        if not filled:
            return
        ready: dict[str, Any] = {"state": TrialState.READY, "ready_at": now}
        filled.sort(key=lambda one: one[0].id)  # trials are always locked in the same order
        with self._writing() as connection:
            for trial, sampled in filled:
                columns = sampled.columns if sampled is not None else {}
                done = connection.execute(_FILL_IN, {"trial": trial.id, **ready, **columns})
                if done.rowcount == 0 and sampled is not None:  # cancelled meanwhile
                    sampled.lane.sampler.forget(trial.id)

    def _pause(self, study_id: int, reason: str) -> None:
        """Pause a study and say why; its owner may resume it."""
        with self._writing() as connection:
            connection.execute(
                update(studies)
                .where(studies.c.id == study_id, studies.c.state == "running")
                .values(state="paused", paused_because=reason)
            )
        self._lanes = {key: lane for key, lane in self._lanes.items() if key[0] != study_id}

    def _parameters(self, connection: Connection, trial: Planned) -> Sampled | None:
        if trial.configured:
            return None
        key = (trial.study_id, trial.task, trial.lane)
        if key not in self._lanes:
            self._lanes[key] = Lane.load(connection, key)
        lane = self._lanes[key]
        lane.catch_up(connection)
        return Sampled(lane, lane.sampler.propose(trial.id, trial.number), lane.revision)

    # --- pruning

    def _prune(self, now: Instant) -> None:
        """Ask for the stop of running trials that their study's pruner would end."""
        if now < self._prune_at:
            return
        self._prune_at = now + int(PRUNE_SECONDS * SECOND)
        with reading(self._engine) as connection:
            decisions = self._pruning.decide(connection)
        if decisions:
            with self._writing() as connection:
                pruning.mark(connection, decisions)


def _definition(connection: Connection, study_id: int) -> StudyDefinition:
    return read_definition(
        connection.execute(select(studies.c.definition).where(studies.c.id == study_id)).scalar_one()
    )


_FILL_IN = update(trials).where(trials.c.id == bindparam("trial"), trials.c.state == TrialState.PLANNED)
