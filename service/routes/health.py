"""Is the process up, and can it do its work?"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from service.database import reading
from service.errors import RETRY_AFTER_SECONDS, problem, responses
from service.schema import newest_schema, schema_of
from service.state import ArenaState

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The service is well."""

    status: str = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", response_model=Health, responses=responses())
def readyz(state: ArenaState) -> Health | Response:
    """The process answers, and so does its database, with this release's tables in it; else 503."""
    with reading(state.engine) as connection:
        found = schema_of(connection)
    if found != newest_schema():
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the database has the tables of schema {found or 'none'}, and this release works with {newest_schema()}: "
            "start the release that belongs to them, or restart this one",
            {"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return Health()
