"""Which schedule won."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from service import standings
from service.database import reading
from service.errors import responses
from service.state import ArenaState
from studies.protocol import Leaderboard

router = APIRouter(tags=["leaderboard"])


@router.get("/studies/{study}/leaderboard", responses=responses(HTTPStatus.NOT_FOUND))
def study_leaderboard(study: str, state: ArenaState) -> Leaderboard:
    """The ranked schedules of a study, task by task."""
    with reading(state.engine) as connection:
        return standings.of_study(connection, study)


@router.get("/leaderboard", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
def task_leaderboard(task: Annotated[str, Query(max_length=100)], state: ArenaState) -> Leaderboard:
    """The ranked schedules on a task, across all studies."""
    with reading(state.engine) as connection:
        return standings.of_task(connection, task)
