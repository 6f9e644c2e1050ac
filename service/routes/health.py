"""Is the process up, and can it do its work?"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from service.database import reading
from service.errors import responses
from service.state import ArenaState

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The service is well."""

    status: str = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", responses=responses())
def readyz(state: ArenaState) -> Health:
    """The process answers, and so does its database; else 503."""
    with reading(state.engine) as connection:
        connection.execute(text("SELECT 1"))
        return Health(status=HTTPStatus.OK.phrase.lower())
