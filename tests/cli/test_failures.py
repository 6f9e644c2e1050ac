"""Exit codes and messages."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from arena_cli.failures import MissingExtra, exit_code, require_service, require_worker
from studies.errors import ArenaError, FieldError, InvalidDefinition, NotFound, Refused, Unreachable, UnsafeBinding
from tests.cli.conftest import run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidDefinition([FieldError("epochs", 0, "must be at least 1")]), 2),
        (UnsafeBinding("no"), 2),
        (Refused(422, {"detail": "1 field is not right"}), 2),
        (Refused(409, {"detail": "taken"}), 1),
        (Unreachable("no answer"), 1),
        (NotFound("study", "x"), 1),
        (MissingExtra("keras"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_user_must_write_differently_is_2_and_everything_else_1(error: ArenaError, code: int) -> None:
    assert exit_code(error) == code


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name in packages else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_serving_without_the_service_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "fastapi", "optuna")
    result = run("serve")
    assert result.exit_code == 1
    assert "fastapi, optuna" in result.stderr
    assert "pip install 'lr-arena[service]'" in result.stderr


def test_working_without_keras_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "keras", "tensorflow", "jax", "torch")
    result = run("worker")
    assert result.exit_code == 1
    assert "pip install 'lr-arena[worker,tensorflow]'" in result.stderr


def test_working_without_the_chosen_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(MissingExtra, match=r"\(jax\).*lr-arena\[worker,jax\]"):
        require_worker()


def test_with_everything_installed_nothing_is_refused() -> None:
    require_service()
    require_worker()


def test_an_address_that_is_none_is_wrong_usage() -> None:
    for address in ("foo", "http://", "ftp://host", "http://host:port"):
        result = run("studies", "--server", address)
        assert result.exit_code == 2, address
        assert "is no address" in result.stderr


def test_a_service_that_is_not_there_is_named() -> None:
    result = run("studies", server="http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.output


def test_listening_beyond_this_machine_is_refused() -> None:
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "will not listen on '0.0.0.0'" in result.stderr


def test_a_port_that_is_none_is_wrong_usage() -> None:
    assert run("serve", "--port", "70000").exit_code == 2
