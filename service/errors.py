"""The one place that knows which HTTP status an error has. Every error is `application/problem+json`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from service.database import is_away, without_statement
from service.headers import SAFE
from studies.errors import ArenaError, Conflict, InvalidInput, NotFound
from studies.protocol import Problem

log = logging.getLogger(__name__)

STATUS: Mapping[type[ArenaError], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
}

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2

RESPONSES: dict[int | str, dict[str, Any]] = {
    status.value: {"model": Problem, "description": status.phrase}
    for status in (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}

GATE_RESPONSES: dict[int | str, dict[str, Any]] = {
    status.value: RESPONSES[status.value]
    for status in (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}
"""What `service.gate` may answer in place of any route but the public ones."""

MAX_FIELDS = 100
"""At most so many bad fields are told of at once."""


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """What a route documents: these errors, and that the database may be away."""
    return {status.value: RESPONSES[status.value] for status in (*statuses, HTTPStatus.SERVICE_UNAVAILABLE)}


def install(app: FastAPI) -> None:
    """Render every error of the app as a problem."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _our_fault)


def answer_to(request: Request, error: Exception) -> Response:
    """The problem that an error is rendered as; raises it if it is a fault of the service."""
    for kind, handler in _HANDLERS.items():
        if isinstance(error, kind):
            return handler(request, error)
    raise error


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A problem as a response; `more` are further members of the body."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **more}
    text = json.dumps(body, allow_nan=False)  # ASCII: what was sent and is shown may be half a surrogate pair
    return Response(text, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _arena_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ArenaError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    if isinstance(error, InvalidInput):
        fields = [{"field": f.field, "value": _plain(f.value), "message": f.message} for f in error.fields]
        return problem(status, _count(len(fields)), fields=fields)
    return problem(status, str(error))


def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    bad = error.errors()
    fields = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
            "value": _plain(item.get("input")),
            "message": item["msg"][:1].lower() + item["msg"][1:],
        }
        for item in bad[:MAX_FIELDS]
    ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _count(len(bad)), fields=fields)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's, for a body that fails otherwise than by its grammar
        nested = isinstance(error.__cause__, RecursionError)
        message = "cannot be read as JSON: " + ("it is nested too deeply" if nested else str(error.__cause__))
        fields = [{"field": "(body)", "value": None, "message": message}]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _count(1), fields=fields)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request))
    return problem(HTTPStatus(error.status_code), str(error.detail), headers)


def _methods_of(request: Request) -> list[str]:
    """What can be asked at this address, also where each method is a route of its own."""
    path, documented = request.scope["path"], request.app.openapi()["paths"]
    if path not in documented:
        patterns = {template: re.sub(r"\{[^}]*\}", "[^/]+", template) for template in documented}
        path = next((template for template, pattern in patterns.items() if re.fullmatch(pattern, path)), path)
    return [method.upper() for method in documented.get(path, {"get": None})]


def database_away(error: Exception) -> Response:
    """The answer where the database is busy or away."""
    log.warning("the database is busy or away: %s", without_statement(error))
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database is busy or away; send the same request again, a repetition does no harm",
        {"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _database_error(request: Request, error: Exception) -> Response:
    if not is_away(error):
        raise error
    return _database_away(request, error)


def _database_away(_request: Request, error: Exception) -> Response:
    return database_away(error)


def _our_fault(_request: Request, _error: Exception) -> Response:
    # The server logs the traceback. This answer alone is made outside the gate, which gives the others their headers.
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the service; its log says more", SAFE)


_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    ArenaError: _arena_error,
    RequestValidationError: _invalid_request,
    HTTPException: _http_error,
    DBAPIError: _database_error,
    PoolTimeout: _database_away,
}


def _count(n: int) -> str:
    return "1 field is not right" if n == 1 else f"{n} fields are not right"


def _plain(value: Any) -> Any:
    """The value as JSON can show it, and no longer than a reader needs."""
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:200] + "..."
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    try:
        shown = repr(value)
    except ValueError:  # an integer with more digits than Python writes
        return "a number of very many digits"
    if isinstance(value, float):
        return value if abs(value) < float("inf") else shown
    if len(shown) <= 500 and isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if len(shown) <= 500 and isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return shown[:200] + ("..." if len(shown) > 200 else "")
