"""What there is: schedules, tasks, workers."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter

from service import registry, roster
from service.database import reading
from service.errors import responses
from service.state import ArenaState
from studies.preview import Preview, PreviewRequest, preview
from studies.protocol import TaskView, WorkerView
from studies.schedules import CATALOGUE, ScheduleInfo, describe

router = APIRouter(tags=["catalogue"])


@router.get("/schedules")
def list_schedules() -> list[ScheduleInfo]:
    """The schedules that can compete: formula, source, parameters, default ranges."""
    return [describe(name) for name in CATALOGUE]


@router.get("/schedules/{schedule}", responses=responses(HTTPStatus.NOT_FOUND))
def get_schedule(schedule: str) -> ScheduleInfo:
    """One schedule of the catalogue."""
    return describe(schedule)


@router.post("/schedules/preview", responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY))
def preview_schedule(request: PreviewRequest) -> Preview:
    """The rates that a schedule gives at these parameters. Stores nothing; the same request has the same answer."""
    return preview(request)


@router.get("/tasks", responses=responses())
def list_tasks(state: ArenaState) -> list[TaskView]:
    """The tasks that workers announced, and those that they know but cannot run, with the reason."""
    with reading(state.engine) as connection:
        return registry.list_tasks(connection, state.clock())


@router.get("/workers", responses=responses())
def list_workers(state: ArenaState) -> list[WorkerView]:
    """The workers that have asked for trials, the last heard of first."""
    with reading(state.engine) as connection:
        return roster.list_workers(connection, state.clock())
