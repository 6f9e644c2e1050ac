"""What does not change about studies and leases, read once: a cache, since every message of a worker needs it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from service.tables import boards, studies
from studies.definition import StudyDefinition, read_definition
from studies.tasks import Direction
from studies.trial import Phase

LARGEST = 2_000
"""So many boards are kept; past it all are forgotten, and read again as they are needed."""
LARGEST_LEASES = 20_000


@dataclass(frozen=True)
class Board:
    """One task of a study whose metric is known."""

    study: str
    definition: StudyDefinition
    metric: str
    direction: Direction


@dataclass(frozen=True)
class Leased:
    """What a token stands for, whatever becomes of the lease: one attempt at a trial."""

    trial_id: int
    attempt: int
    phase: Phase
    board: Board


class Known:
    """The boards and leases that one process has met. Not for two databases. Any thread may ask."""

    def __init__(self) -> None:
        self._boards: dict[tuple[int, str], Board] = {}
        self._leases: dict[str, Leased] = {}

    def lease(self, trial_id: int, token: str) -> Leased | None:
        """What a token stands for, if it was met, and was this trial's."""
        found = self._leases.get(token)
        return found if found is not None and found.trial_id == trial_id else None

    def note(self, token: str, leased: Leased) -> None:
        """Remember what a token stands for."""
        if len(self._leases) >= LARGEST_LEASES:
            self._leases.clear()
        self._leases[token] = leased

    def met(self, study_id: int, task: str) -> Board | None:
        """The board of a trial, if it was met before."""
        return self._boards.get((study_id, task))

    def board(self, connection: Connection, study_id: int, task: str) -> Board:
        """The board of a trial that has parameters: its metric is known then, and stays what it is."""
        key = (study_id, task)
        if (found := self._boards.get(key)) is not None:
            return found
        row = connection.execute(
            select(studies.c.name, studies.c.definition, boards.c.metric, boards.c.direction)
            .join(boards, boards.c.study_id == studies.c.id)
            .where(studies.c.id == study_id, boards.c.task == task)
        ).one()
        if len(self._boards) >= LARGEST:
            self._boards.clear()
        self._boards[key] = Board(row.name, read_definition(row.definition), row.metric, row.direction)
        return self._boards[key]
