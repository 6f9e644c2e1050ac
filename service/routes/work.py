"""What workers ask and send: claims, reports, results, releases. Each of them may be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from service import queue, reports
from service.database import reading, writing
from service.errors import problem, responses
from service.state import Arena, ArenaState
from studies.protocol import (
    Answer,
    Answers,
    Assignment,
    ClaimRequest,
    ClaimResponse,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    StaleProblem,
)

router = APIRouter(tags=["workers"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **responses(HTTPStatus.UNPROCESSABLE_ENTITY),
    409: {"model": StaleProblem, "description": "Every token of the message is stale; nothing was changed"},
}


@router.post("/claims", responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY))
async def claim_trials(claim: ClaimRequest, state: ArenaState, request: Request) -> ClaimResponse:
    """Lease up to `slots` ready trials. Waits for the first one for up to `wait_seconds`.

    The same `request_id` again gives the same trials, as far as the worker still holds them.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + claim.wait_seconds
    await run_in_threadpool(_announce, state, claim)
    while True:
        seen = state.ready.seen
        trials = await run_in_threadpool(_claim, state, claim)
        if trials is not None:
            return ClaimResponse(trials=trials)
        while True:
            left = deadline - loop.time()
            if left <= 0 or not await state.ready.wait(seen, left):
                return ClaimResponse(trials=[])
            seen = state.ready.seen
            if await run_in_threadpool(_any_ready, state, claim):
                break
        if await request.is_disconnected():  # nobody is there to run what would be leased
            return ClaimResponse(trials=[])


def _announce(state: Arena, claim: ClaimRequest) -> None:
    with writing(state.engine) as connection:
        queue.announce(connection, claim, state.clock())


def _claim(state: Arena, claim: ClaimRequest) -> list[Assignment] | None:
    with writing(state.engine) as connection:
        return queue.claim(connection, claim, state.clock(), state.settings.lease)


def _any_ready(state: Arena, claim: ClaimRequest) -> bool:
    with reading(state.engine) as connection:
        return queue.any_ready(connection, claim)


@router.post("/reports", response_model=Answers, responses=_ANSWERS)
def report_epochs(report: ReportRequest, state: ArenaState) -> Answers | Response:
    """Store epochs and renew leases; without epochs, a heartbeat. The same report again changes nothing."""
    with writing(state.engine) as connection:
        return _answer(reports.accept_reports(connection, report, state.clock(), state.settings.lease))


@router.post("/results", response_model=Answers, responses=_ANSWERS)
def finish_trials(result: ResultRequest, state: ArenaState) -> Answers | Response:
    """Finish trials. The same result again changes nothing and is answered as the first time."""
    with writing(state.engine) as connection:
        return _answer(reports.accept_results(connection, result, state.clock()))


@router.post("/releases", response_model=Answers, responses=_ANSWERS)
def release_trials(release: ReleaseRequest, state: ArenaState) -> Answers | Response:
    """Hand trials back to the queue. The same release again changes nothing."""
    with writing(state.engine) as connection:
        return _answer(reports.accept_releases(connection, release, state.clock()))


def _answer(answers: Sequence[Answer]) -> Answers | Response:
    if any(answer.status == 200 for answer in answers):
        return Answers(trials=list(answers))
    return problem(
        HTTPStatus.CONFLICT,
        "; ".join(dict.fromkeys(answer.detail for answer in answers)),
        trials=[answer.model_dump() for answer in answers],
    )
