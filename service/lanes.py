"""A lane is one search: its sampler, kept in step with our rows by their revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, true

from service.sampling import Past, Proposal, Sampler
from service.tables import JOINT_LANE, arms, boards, studies, trials
from studies.configuration import Configuration
from studies.definition import StudyDefinition, read_definition
from studies.space import FlatSpace, JointSpace
from studies.trial import TrialState

LaneKey = tuple[int, str, str]
"""Study, task, and the lane's name: a schedule, or `*` in `explore`."""


@dataclass(frozen=True)
class Sampled:
    """A proposal for a trial, with what its sampler had seen."""

    lane: Lane
    proposal: Proposal
    revision: int

    @property
    def columns(self) -> dict[str, Any]:
        """What the trial's row gets."""
        configuration = Configuration.from_flat(
            self.proposal.schedule, self.lane.definition.optimizer.type, self.proposal.values
        )
        return {
            "arm_id": self.lane.arms[self.proposal.schedule],
            "parameters": self.proposal.values,
            "configuration": configuration.model_dump(mode="json"),
            "sampled_at_revision": self.revision,
        }


@dataclass
class Lane:
    """One search: its sampler, kept in step with the rows by revision."""

    key: LaneKey
    definition: StudyDefinition
    arms: Mapping[str, int]
    """Schedule -> id, of all arms that the sampler may choose."""
    sampler: Sampler
    revision: int = -1

    @classmethod
    def load(cls, connection: Connection, key: LaneKey) -> Lane:
        """The search as its rows have it; its history is learned by `catch_up`."""
        study_id, task, lane = key
        row = connection.execute(
            select(studies.c.definition, boards.c.direction)
            .join(boards, boards.c.study_id == studies.c.id)
            .where(studies.c.id == study_id, boards.c.task == task)
        ).one()
        definition = read_definition(row.definition)
        rows = connection.execute(
            select(arms.c.id, arms.c.schedule, arms.c.space)
            .where(arms.c.study_id == study_id, arms.c.task == task)
            .where(true() if lane == JOINT_LANE else arms.c.schedule == lane)
            .order_by(arms.c.position)
        ).all()
        spaces = [FlatSpace.model_validate(arm.space) for arm in rows]
        size = definition.search.trials_per_schedule * len(spaces)
        return cls(
            key,
            definition,
            {arm.schedule: arm.id for arm in rows},
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
            select(
                trials.c.id,
                trials.c.number,
                trials.c.state,
                trials.c.parameters,
                trials.c.value,
                trials.c.last_epoch,
                trials.c.last_value,
                arms.c.schedule,
            )
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
            last = None if row.last_epoch is None else (row.last_epoch, row.last_value)
            proposal = Proposal(row.schedule, row.parameters)
            self.sampler.learn(Past(row.id, row.number, proposal, TrialState(row.state), row.value, last))
        self.revision = revision
