"""The short way answers as FastAPI does, and what is not right goes the long way as it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from service.fast_path import FastPath
from studies.errors import Conflict
from studies.protocol import LeaseToken, Sent
from tests.service.support import Service, Worker

router = APIRouter()


class Note(Sent):
    words: LeaseToken


@router.post("/notes")
async def take(note: Note, request: Request) -> Response:
    if note.words == "taken":
        raise Conflict("it is taken")
    if note.words == "broken":
        raise ZeroDivisionError
    return Response(f"{request.headers['x-name']}: {note.words}", 201)


JSON = (b"content-type", b"application/json")


class Asked:
    """One request to a FastPath, in parts: what was answered, and what went the long way."""

    def __init__(self, parts: Sequence[bytes | None], *headers: tuple[bytes, bytes], path: str = "/v/notes") -> None:
        self.long_way: list[bytes] = []
        self.answer: list[Message] = []
        self._parts = list(parts)
        self._length = (b"content-length", str(sum(len(part or b"") for part in parts)).encode())
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"x-name", b"me"), *headers],
        }

    def with_length(self) -> Asked:
        """The same, of a stated length."""
        self._scope["headers"].append(self._length)  # type: ignore[attr-defined]
        asyncio.run(FastPath(self._app, router, "/v")(self._scope, self._receive, self._send))
        return self

    def without_length(self) -> Asked:
        asyncio.run(FastPath(self._app, router, "/v")(self._scope, self._receive, self._send))
        return self

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message.get("more_body"):
            self.long_way.append(message["body"])
            message = await receive()
        self.long_way.append(message["body"])

    async def _receive(self) -> Message:
        part = self._parts.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def _send(self, message: Message) -> None:
        self.answer.append(message)


def test_a_message_that_is_right_is_answered_here() -> None:
    asked = Asked([b'{"words": ', b'"hello"}'], JSON).with_length()
    start, body = asked.answer
    assert (start["status"], body["body"], asked.long_way) == (201, b"me: hello", [])


def test_an_error_of_the_endpoint_is_a_problem() -> None:
    start, body = Asked([b'{"words": "taken"}'], JSON).with_length().answer
    assert start["status"] == 409
    assert json.loads(body["body"])["detail"] == "it is taken"


def test_a_fault_of_the_endpoint_is_nobodys_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        Asked([b'{"words": "broken"}'], JSON).with_length()


def test_nobody_is_answered_who_has_gone() -> None:
    asked = Asked([b'{"words": ', None], JSON).with_length()
    assert (asked.answer, asked.long_way) == ([], [])


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"words": 1}', b'{"words": "a", "more": 1}', b"[" * 100_000, b"\xff", b'{"words": NaN}']
)
def test_what_is_not_right_goes_the_long_way_as_it_came(body: bytes) -> None:
    asked = Asked([body[:3], body[3:]], JSON).with_length()
    assert (asked.answer, asked.long_way) == ([], [body])


def test_a_body_of_unknown_length_or_kind_goes_the_long_way_unread() -> None:
    body = b'{"words": "hello"}'
    assert Asked([body[:3], body[3:]], JSON).without_length().long_way == [body[:3], body[3:]]
    assert Asked([body], (b"content-type", b"text/plain")).with_length().long_way == [body]
    assert Asked([body], JSON, path="/v/others").with_length().long_way == [body]
    chunked = (b"transfer-encoding", b"chunked")
    assert Asked([body], JSON, chunked).with_length().long_way == [body]


BODIES: list[Any] = [
    "",
    "{",
    "null",
    "[]",
    '{"worker_id": "w", "trials": []}',
    '{"worker_id": "w", "trials": [{"trial_id": 1, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": "1", "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 1.0, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": true, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 1, "token": "t"}], "worker_id": "v"}',
    '{"worker_id": "w", "trials": [{"trial_id": 1, "token": "t"}, {"trial_id": 1, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 1, "token": "\\ud800"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 1e400, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 99999999999999999999, "token": "t"}]}',
    '{"worker_id": "w", "trials": [{"trial_id": 1, "token": "t", "epochs": [{"epoch": 0, "metrics": {"a": NaN}}]}]}',
    "[" * 5000,
]


@pytest.mark.parametrize("path", ["reports", "results", "releases", "claims"])
def test_both_ways_answer_the_same(service: Service, worker: Worker, path: str) -> None:
    service.submit()
    trial = worker.next(service)
    held = {"trial_id": trial.trial_id, "token": trial.token}
    request = worker.request(request_id="again").model_dump(mode="json")
    good = {
        "reports": {"worker_id": "w", "trials": [held]},
        "results": {"worker_id": "w", "trials": [{**held, "outcome": "diverged", "train_seconds": 1}]},
        "releases": {"worker_id": "w", "trials": [{**held, "cause": "preempted"}]},
        "claims": {**request, "worker": {**request["worker"], "id": "another"}},
    }[path]
    with httpx.Client(base_url=f"{service.url}/api/v1") as client:
        for body in [*BODIES, json.dumps(good)]:
            answers = [
                client.post(f"/{path}", content=body, headers={"Content-Type": kind})
                for kind in ("application/json; charset=utf-8", "application/json")  # the long way, and the short one
            ]
            long, short = [(a.status_code, a.headers["content-type"], a.headers["x-frame-options"]) for a in answers]
            assert long == short, body
            if body != json.dumps(good):  # the first of two that are good ends the lease
                assert answers[0].json() == answers[1].json(), body
    assert answers[1].status_code == 200
