"""Is the process up, and can it do its work?"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from service.errors import responses
from service.state import Reading

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The service is well."""

    status: str = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", responses=responses())
def readyz(connection: Reading) -> Health:
    """The process answers, and so does its database; else 503."""
    connection.execute(text("SELECT 1"))
    return Health(status=HTTPStatus.OK.phrase.lower())
