"""The director's process with points to die at: before and after the commit of each of its steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import service.directing
import service.leading
from service.director import Director
from service.settings import Settings
from tests.faults.bombs import lay_in, pass_point

_step: ContextVar[str] = ContextVar("step", default="lead")


def named(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        token = _step.set(name)
        try:
            return step(*arguments, **options)
        finally:
            _step.reset(token)

    return run


def main(settings: Settings, bombs: str) -> None:
    lay_in(bombs)
    service.leading.LEAD_SECONDS = 2.0  # so that the next one takes over sooner
    for name, step in {"_expire": "expire", "_write": "fill", "_advance_phases": "advance-phases"}.items():
        setattr(Director, name, named(step, getattr(Director, name)))
    open_database = service.directing.open_database

    def with_points(url: str) -> Any:
        engine = open_database(url)
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            pass_point(f"director-{_step.get()}-before-commit")
            commit(connection)
            pass_point(f"director-{_step.get()}-after-commit")

        engine.dialect.do_commit = do_commit
        return engine

    service.directing.open_database = with_points
    lifeline, _held = os.pipe()  # never closed: these processes end by SIGKILL alone
    os.environ.update(settings.as_environment)
    service.directing.main(str(lifeline))
