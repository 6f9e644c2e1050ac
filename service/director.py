"""The process beside the web: expires leases, moves studies from phase to phase, fills planned trials in.

One director leads at a time. Leading is a row in the database with an epoch; every change of leader has
a higher one, and each of the director's transactions checks that its epoch still holds, so that one
that was thought dead cannot write. All that it knows can be read from the tables again at any time.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, not_, or_, select, true, update
from sqlalchemy.exc import OperationalError

from service import queue, range_tests
from service.clock import SECOND, Clock, Instant, system_clock
from service.database import ChangeSignal, insert_new, reading, writing
from service.queue import WORKER_SILENCE_SECONDS
from service.registry import announced_manifests, objective
from service.sampling import Past, Proposal, Sampler
from service.standings import best_search_trials
from service.tables import JOINT_LANE, arms, boards, director, studies, trials, workers
from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.leaderboard import best_search
from studies.seeds import training_seed
from studies.space import FlatSpace, JointSpace
from studies.trial import TrialState

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""How often the director looks whether anything changed; a look without a change costs microseconds."""
ROUTINE_SECONDS = 1.0
"""How often it does its round even so: leases expire, and its own lead must be renewed."""
LEAD_SECONDS = 5.0
"""How long a silent director is still taken for the leader."""

LaneKey = tuple[int, str, str]

_TURN = case({"range_test": 0, "search": 1, "confirm": 2}, value=trials.c.phase)
"""Within a study, range tests are filled in first, since searches wait for them; confirm runs last."""


class LeadLost(Exception):
    """Another director leads: what this one knows may be out of date."""


@dataclass(frozen=True)
class Slots:
    """The free slots of one worker, and the tasks they can run."""

    tasks: frozenset[str]
    free: int


@dataclass(frozen=True)
class Planned:
    """A planned trial that is about to be filled in."""

    id: int
    study_id: int
    task: str
    lane: str
    phase: str
    number: int
    configured: bool


class Director:
    """One director over one database. `step` does what is due; `run` does so until it is told to stop."""

    def __init__(self, engine: Engine, clock: Clock = system_clock) -> None:
        self._engine = engine
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._epoch: int | None = None
        self._lanes: dict[LaneKey, _Lane] = {}
        self._advanced: dict[int, int] = {}  # study -> revision at which its phases were last looked at

    def run(self, stop: threading.Event) -> None:
        """Direct until told to stop. A busy or absent database is waited for, any other error ends it."""
        signal = ChangeSignal(self._engine)
        routine_at = 0
        try:
            while not stop.is_set():
                now = self._clock()
                try:
                    if signal.changed() or now >= routine_at:
                        routine_at = now + int(ROUTINE_SECONDS * SECOND)
                        self.step()
                except (OperationalError, sqlite3.OperationalError) as error:
                    log.warning("the database is busy or away, trying again: %s", error)
                    self._lanes.clear()  # what was proposed was perhaps not written
                    stop.wait(ROUTINE_SECONDS)
                stop.wait(POLL_SECONDS)
            self.resign()
        finally:
            signal.close()

    def step(self) -> None:
        """Do what is due now: lead, expire, learn of tasks, advance phases, fill in."""
        now = self._clock()
        if not self._lead(now):
            return
        try:
            expired = self._expire(now)
            self._resolve_tasks()
            self._advance_phases(now)
            self._fill(now)
        except LeadLost:
            log.warning("another director has taken over")
            self._forget()
            return
        if expired:
            log.info("%d leases expired; their trials wait for another worker", expired)

    def resign(self) -> None:
        """Let another director lead at once."""
        if self._epoch is not None:
            with writing(self._engine) as connection:
                connection.execute(
                    update(director).where(director.c.epoch == self._epoch).values(expires_at=self._clock())
                )
            self._forget()

    # --- leading

    def _lead(self, now: Instant) -> bool:
        expires_at = now + int(LEAD_SECONDS * SECOND)
        with reading(self._engine) as connection:
            row = connection.execute(select(director)).first()
        if self._epoch is not None and row is not None and row.epoch == self._epoch:
            if row.expires_at - now > int((LEAD_SECONDS - ROUTINE_SECONDS) * SECOND):
                return True
        elif row is not None and row.expires_at > now:
            self._forget()
            return False
        with writing(self._engine) as connection:
            insert_new(connection, director, [{"id": 1, "epoch": 0, "holder": "", "expires_at": 0}])
            row = connection.execute(select(director).with_for_update()).one()
            if row.epoch != self._epoch:
                if row.expires_at > now:
                    return False
                self._forget()
                self._epoch = row.epoch + 1
                log.info("leading, epoch %d", self._epoch)
            connection.execute(update(director).values(epoch=self._epoch, holder=self._name, expires_at=expires_at))
        return True

    def _forget(self) -> None:
        self._epoch = None
        self._lanes.clear()
        self._advanced.clear()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that only the leader can commit."""
        with writing(self._engine) as connection:
            epoch = connection.execute(select(director.c.epoch).with_for_update(read=True)).scalar()
            if epoch != self._epoch:
                raise LeadLost
            yield connection

    # --- expiring

    def _expire(self, now: Instant) -> int:
        with reading(self._engine) as connection:
            due = connection.execute(
                select(func.count()).where(trials.c.state == TrialState.RUNNING, trials.c.lease_expires_at < now)
            ).scalar_one()
        if not due:
            return 0
        with self._writing() as connection:
            return queue.expire(connection, now)

    # --- tasks

    def _resolve_tasks(self) -> None:
        """Give boards their metric once a worker has announced their task."""
        unknown = (
            select(boards.c.study_id, boards.c.task, studies.c.definition)
            .join(studies, studies.c.id == boards.c.study_id)
            .where(boards.c.metric.is_(None), studies.c.finished_at.is_(None))
        )
        with reading(self._engine) as connection:
            rows = connection.execute(unknown).all()
            manifests = announced_manifests(connection, [row.task for row in rows]) if rows else {}
        if not manifests:
            return
        with self._writing() as connection:
            for row in rows:
                if row.task in manifests:
                    connection.execute(
                        update(boards)
                        .where(boards.c.study_id == row.study_id, boards.c.task == row.task)
                        .values(**objective(read_definition(row.definition), manifests[row.task]))
                    )

    # --- phases

    def _advance_phases(self, now: Instant) -> None:
        """Judge range tests, confirm arms whose search has ended, and finish studies all of whose arms are done."""
        with reading(self._engine) as connection:
            open_studies = connection.execute(
                select(studies.c.id, studies.c.name, studies.c.revision, studies.c.definition).where(
                    studies.c.finished_at.is_(None)
                )
            ).all()
        known = {study.id for study in open_studies}
        self._lanes = {key: lane for key, lane in self._lanes.items() if key[0] in known}
        self._advanced = {study_id: seen for study_id, seen in self._advanced.items() if study_id in known}
        for study in open_studies:
            if self._advanced.get(study.id) == study.revision:
                continue
            with self._writing() as connection:
                still_open = select(studies.c.id).where(studies.c.id == study.id, studies.c.finished_at.is_(None))
                if connection.execute(still_open.with_for_update()).first() is None:
                    continue  # cancelled since: its trials have ended, but not by being run
                definition = read_definition(study.definition)
                if definition.has_range_tests:
                    range_tests.judge(connection, study.id)
                if definition.search.allocation == "equal":
                    _end_searches_of_arms(connection, study.id, definition, now)
                else:
                    _end_joint_searches(connection, study.id, definition, now)
                if _finish_if_done(connection, study.id, now):
                    log.info("study %s is finished", study.name)
            self._advanced[study.id] = study.revision

    # --- filling in

    def _fill(self, now: Instant) -> None:
        """Fill planned trials in: as many ready ones as there are free announced slots, no more."""
        failures: dict[int, str] = {}
        filled: list[tuple[Planned, _Sampled | None]] = []
        with reading(self._engine) as connection:
            for trial in _wanted(connection, now):
                try:
                    filled.append((trial, self._parameters(connection, trial)))
                except OperationalError:
                    raise
                except Exception as error:
                    log.exception("study %d cannot be sampled", trial.study_id)
                    failures[trial.study_id] = f"{type(error).__name__}: {error}"
        for study_id, reason in failures.items():
            self._pause(study_id, f"its parameters cannot be sampled ({reason})")
        if not filled:
            return
        with self._writing() as connection:
            for trial, sampled in filled:
                values: dict[str, Any] = {"state": TrialState.READY, "ready_at": now}
                if sampled is not None:
                    values |= sampled.columns(connection, trial)
                done = connection.execute(
                    update(trials).where(trials.c.id == trial.id, trials.c.state == TrialState.PLANNED).values(**values)
                )
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

    def _parameters(self, connection: Connection, trial: Planned) -> _Sampled | None:
        if trial.configured:
            return None
        key = (trial.study_id, trial.task, trial.lane)
        if key not in self._lanes:
            self._lanes[key] = _Lane.load(connection, key)
        lane = self._lanes[key]
        lane.catch_up(connection)
        return _Sampled(lane, lane.sampler.propose(trial.id, trial.number), lane.revision)


@dataclass(frozen=True)
class _Sampled:
    """A proposal for a trial, with what its sampler had seen."""

    lane: _Lane
    proposal: Proposal
    revision: int

    def columns(self, connection: Connection, trial: Planned) -> dict[str, Any]:
        configuration = Configuration.from_flat(
            self.proposal.schedule, self.lane.definition.optimizer.type, self.proposal.values
        )
        arm_id = connection.execute(
            select(arms.c.id).where(
                arms.c.study_id == trial.study_id,
                arms.c.task == trial.task,
                arms.c.schedule == self.proposal.schedule,
            )
        ).scalar_one()
        return {
            "arm_id": arm_id,
            "parameters": self.proposal.values,
            "configuration": configuration.model_dump(mode="json"),
            "sampled_at_revision": self.revision,
        }


@dataclass
class _Lane:
    """One search: its sampler, kept in step with the rows by revision."""

    key: LaneKey
    definition: StudyDefinition
    sampler: Sampler
    revision: int = -1

    @classmethod
    def load(cls, connection: Connection, key: LaneKey) -> _Lane:
        study_id, task, lane = key
        row = connection.execute(
            select(studies.c.definition, boards.c.direction)
            .join(boards, boards.c.study_id == studies.c.id)
            .where(studies.c.id == study_id, boards.c.task == task)
        ).one()
        definition = read_definition(row.definition)
        spaces = [
            FlatSpace.model_validate(arm.space)
            for arm in connection.execute(
                select(arms.c.space)
                .where(arms.c.study_id == study_id, arms.c.task == task)
                .where(true() if lane == JOINT_LANE else arms.c.schedule == lane)
                .order_by(arms.c.position)
            )
        ]
        size = definition.search.trials_per_schedule * len(spaces)
        return cls(
            key,
            definition,
            Sampler(
                definition.search.sampler,
                JointSpace(branches=tuple(spaces)) if lane == JOINT_LANE else spaces[0],
                row.direction,
                seed=definition.search.seed,
                task=task,
                lane=lane,
                size=size,
            ),
        )

    def catch_up(self, connection: Connection) -> None:
        """Tell the sampler what has happened since; at first, all that has."""
        study_id, task, lane = self.key
        revision = int(connection.execute(select(studies.c.revision).where(studies.c.id == study_id)).scalar_one())
        if revision == self.revision or not self.sampler.learns:
            self.revision = revision
            return
        first = self.revision < 0
        ended = trials.c.revision > self.revision
        rows = connection.execute(
            select(trials.c.id, trials.c.number, trials.c.state, trials.c.parameters, trials.c.value, arms.c.schedule)
            .join(arms, arms.c.id == trials.c.arm_id)
            .where(
                trials.c.study_id == study_id,
                trials.c.task == task,
                trials.c.lane == lane,
                trials.c.phase == "search",
                trials.c.parameters.is_not(None),
                (ended | trials.c.revision.is_(None)) if first else ended,
            )
            .order_by(trials.c.number)
        )
        for row in rows:
            self.sampler.learn(
                Past(row.id, row.number, Proposal(row.schedule, row.parameters), TrialState(row.state), row.value)
            )
        self.revision = revision


def _wanted(connection: Connection, now: Instant) -> list[Planned]:
    """The planned trials to fill in: for each free slot without a ready trial the next one that it can run."""
    alive_since = now - WORKER_SILENCE_SECONDS * SECOND
    slots = [
        Slots(frozenset(row.tasks), row.free_slots)
        for row in connection.execute(
            select(workers.c.tasks, workers.c.free_slots)
            .where(workers.c.last_seen_at >= alive_since, workers.c.free_slots > 0)
            .order_by(workers.c.id)
        )
    ]
    if not slots:
        return []
    running = studies.c.state == "running"
    ready: Counter[str] = Counter()
    for row in connection.execute(
        select(trials.c.task, func.count().label("n"))
        .join(studies, studies.c.id == trials.c.study_id)
        .where(trials.c.state == TrialState.READY, running)
        .group_by(trials.c.task)
    ):
        ready[row.task] = row.n
    chosen: list[Planned] = []
    for tasks, free in unserved(slots, ready):
        rows = connection.execute(
            select(
                trials.c.id,
                trials.c.study_id,
                trials.c.task,
                trials.c.lane,
                trials.c.phase,
                trials.c.number,
                trials.c.configuration.is_not(None).label("configured"),
            )
            .join(studies, studies.c.id == trials.c.study_id)
            .join(boards, and_(boards.c.study_id == trials.c.study_id, boards.c.task == trials.c.task))
            .where(
                trials.c.state == TrialState.PLANNED,
                running,
                boards.c.metric.is_not(None),
                or_(trials.c.phase == "range_test", not_(boards.c.awaits_range_test)),
                trials.c.task.in_(tasks),
                trials.c.id.not_in([trial.id for trial in chosen]),
            )
            .order_by(trials.c.study_id, _TURN, trials.c.number, trials.c.id)
            .limit(free)
        )
        chosen += [Planned(**row._mapping) for row in rows]
    return chosen


def unserved(slots: Iterable[Slots], ready: Counter[str]) -> list[tuple[frozenset[str], int]]:
    """The free slots that no ready trial is there for, by the tasks they can run.

    >>> unserved([Slots(frozenset({"a", "b"}), 2), Slots(frozenset({"a"}), 1)], Counter({"b": 1, "c": 5}))
    [(frozenset({'a', 'b'}), 1), (frozenset({'a'}), 1)]
    """
    left = Counter(ready)
    result = []
    for worker in slots:
        free = worker.free
        for task in sorted(worker.tasks):
            served = min(free, left[task])
            left[task] -= served
            free -= served
        if free:
            result.append((worker.tasks, free))
    return sorted(result, key=lambda item: (-item[1], sorted(item[0])))


def _end_searches_of_arms(connection: Connection, study_id: int, definition: StudyDefinition, now: Instant) -> None:
    """In `equal`: confirm each arm whose search trials have all ended."""
    still_open = select(trials.c.arm_id).where(
        trials.c.study_id == study_id, trials.c.phase == "search", trials.c.finished_at.is_(None)
    )
    ended = connection.execute(
        select(arms)
        .where(arms.c.study_id == study_id, arms.c.phase == "search", arms.c.id.not_in(still_open))
        .order_by(arms.c.id)
    ).all()
    if ended:
        best = best_search_trials(connection, [arm.id for arm in ended])
        for arm in ended:
            _confirm(connection, arm, best.get(arm.id), definition, now)


def _end_joint_searches(connection: Connection, study_id: int, definition: StudyDefinition, now: Instant) -> None:
    """In `explore`: where a task's search has ended, confirm its top schedules."""
    still_open = select(trials.c.task).where(
        trials.c.study_id == study_id, trials.c.phase == "search", trials.c.finished_at.is_(None)
    )
    ended = connection.execute(
        select(arms, boards.c.direction)
        .join(boards, and_(boards.c.study_id == arms.c.study_id, boards.c.task == arms.c.task))
        .where(arms.c.study_id == study_id, arms.c.phase == "search", arms.c.task.not_in(still_open))
        .order_by(arms.c.id)
    ).all()
    for task in dict.fromkeys(arm.task for arm in ended):
        of_task = [arm for arm in ended if arm.task == task]
        best = best_search_trials(connection, [arm.id for arm in of_task])
        left = [(arm_id, row.value) for arm_id, row in sorted(best.items())]
        top: set[int] = set()
        while left and len(top) < definition.confirm.top_schedules:
            winner = best_search(left, of_task[0].direction)
            assert winner is not None
            top.add(winner[0])
            left = [item for item in left if item[0] != winner[0]]
        for arm in of_task:
            _confirm(connection, arm, best[arm.id] if arm.id in top else None, definition, now)


def _confirm(connection: Connection, arm: Any, best: Any | None, definition: StudyDefinition, now: Instant) -> None:
    """Plan the confirm runs of an arm's best search trial; an arm without one is done."""
    seeds = definition.confirm.seeds if best is not None else 0
    connection.execute(update(arms).where(arms.c.id == arm.id).values(phase="confirm" if seeds else "done"))
    rows = [
        {
            "study_id": arm.study_id,
            "task": arm.task,
            "lane": arm.schedule,
            "phase": "confirm",
            "number": number,
            "arm_id": arm.id,
            "seed": training_seed(definition.search.seed, arm.task, "confirm", number),
            "state": TrialState.PLANNED,
            "parameters": best.parameters if best is not None else None,
            "configuration": best.configuration if best is not None else None,
            "created_at": now,
        }
        for number in range(seeds)
    ]
    if rows:
        connection.execute(trials.insert(), rows)


def _finish_if_done(connection: Connection, study_id: int, now: Instant) -> bool:
    still_open = select(trials.c.arm_id).where(
        trials.c.study_id == study_id, trials.c.phase == "confirm", trials.c.finished_at.is_(None)
    )
    connection.execute(
        update(arms)
        .where(arms.c.study_id == study_id, arms.c.phase == "confirm", arms.c.id.not_in(still_open))
        .values(phase="done")
    )
    left = connection.execute(
        select(func.count()).where(arms.c.study_id == study_id, arms.c.phase != "done")
    ).scalar_one()
    if left:
        return False
    done = connection.execute(
        update(studies)
        .where(studies.c.id == study_id, studies.c.finished_at.is_(None))
        .values(state="finished", finished_at=now)
    )
    return done.rowcount > 0
