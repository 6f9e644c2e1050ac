"""What workers ask and send: claims, reports, results, releases. Each of them may be sent twice.

These routes are async, since they wait: for a trial, or for the transaction that many messages share. They take a
message and the request alone, so that `service.fast_path` can call them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service import journal
from service.errors import problem, responses
from service.messages import check_distinct
from service.roster import Asking
from service.state import arena
from studies.protocol import (
    Answer,
    Answers,
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


@router.post("/claims", response_model=ClaimResponse, responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY))
async def claim_trials(claim: ClaimRequest, request: Request) -> Response:
    """Lease up to `slots` ready trials. Waits for the first one for up to `wait_seconds`.

    The same `request_id` again gives the same trials, as far as the worker still holds them. A worker whose last
    attempts all failed at once gets none for a while.
    """
    state = arena(request)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + claim.wait_seconds
    while True:
        claimed = await state.claims.accept(claim)
        if claimed.trials is not None:
            journal.handed_out(claim, claimed.trials)
            return _written(ClaimResponse(trials=claimed.trials))
        left = deadline - loop.time()
        asking = Asking.nothing() if claimed.barred else Asking.of(claim)
        if left <= 0 or not await state.ready.wait(asking, left):
            break
        if await request.is_disconnected():
            break  # nobody is there to run what would be leased
    return _written(ClaimResponse(trials=[]))


@router.post("/reports", response_model=Answers, responses=_ANSWERS)
async def report_epochs(report: ReportRequest, request: Request) -> Response:
    """Store epochs and renew leases; without epochs, a heartbeat. The same report again changes nothing."""
    check_distinct(report)
    return _answer(await arena(request).reports.accept(report))


@router.post("/results", response_model=Answers, responses=_ANSWERS)
async def finish_trials(result: ResultRequest, request: Request) -> Response:
    """Finish trials. The same result again changes nothing and is answered as the first time.

    A result under a stale token is refused with 409, and kept with its trial.
    """
    check_distinct(result)
    answers = await arena(request).results.accept(result)
    journal.given_back(result.worker_id, result.trials, answers)
    return _answer(answers)


@router.post("/releases", response_model=Answers, responses=_ANSWERS)
async def release_trials(release: ReleaseRequest, request: Request) -> Response:
    """Hand trials back to the queue. The same release again changes nothing."""
    check_distinct(release)
    answers = await arena(request).releases.accept(release)
    journal.given_back(release.worker_id, release.trials, answers)
    return _answer(answers)


def _answer(answers: Sequence[Answer]) -> Response:
    if any(answer.status == 200 for answer in answers):
        return _written(Answers(trials=list(answers)))
    return problem(
        HTTPStatus.CONFLICT,
        "; ".join(dict.fromkeys(answer.detail for answer in answers)),
        trials=[answer.model_dump() for answer in answers],
    )


def _written(body: ClaimResponse | Answers) -> Response:
    """A body as it is: it was checked when it was made, and FastAPI would check it again."""
    return Response(body.model_dump_json(), media_type="application/json")
