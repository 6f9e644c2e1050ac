"""Tokens on the command line: made, shown to the service, listed, revoked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arena_cli.demo import SERVING
from studies.client import Client
from studies.errors import Refused
from tests.cli.conftest import LR_ARENA, run


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'arena.db'}"


Serve = Callable[[str, str], str]


@pytest.fixture
def serve(database: str) -> Iterator[Serve]:
    """Starts a service on the database; gives its address."""
    processes: list[subprocess.Popen[str]] = []

    def start(host: str, wanted: str) -> str:
        command = [*LR_ARENA, "serve", "--host", host, "--port", "0", "--database", database]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip().removeprefix(SERVING).replace(host, wanted)

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def test_a_token_is_printed_alone_so_that_a_shell_can_keep_it(database: str) -> None:
    first = run("token", "create", "ada", "--scope", "read", "--scope", "work", "--database", database)
    assert (first.exit_code, re.fullmatch(r"lra_[\w-]{43}\n", first.stdout) is not None) == (0, True)
    assert "shown once" in first.stderr
    assert "from now on the service answers nobody without one" in first.stderr
    second = run(
        "token", "create", "bob", "--scope", "admin", "--expires-days", "30", "--format", "json", "--database", database
    )
    made = json.loads(second.stdout)
    assert (made["name"], made["scopes"], made["state"]) == ("bob", ["admin"], "good")
    assert made["token"].startswith("lra_")
    assert made["expires_at"] > made["created_at"]
    listed = run("token", "list", "--format", "json", "--database", database)
    assert [(one["name"], one["scopes"]) for one in json.loads(listed.stdout)] == [
        ("ada", ["read", "work"]),
        ("bob", ["admin"]),
    ]
    table = run("token", "list", "--database", database).stdout
    assert "read, work" in table
    for output in (listed.stdout, table):
        assert first.stdout.strip() not in output
        assert made["token"] not in output


def test_what_cannot_be_a_token_is_said(database: str) -> None:
    assert "there is no token" in run("token", "list", "--database", database).stdout
    assert run("token", "create", "ada", "--scope", "read", "--database", database).exit_code == 0
    for arguments, code, words in (
        (("create", "ada", "--scope", "read"), 1, "a token named 'ada' already"),
        (("create", "a b", "--scope", "read"), 2, "name: must be"),
        (("create", "eve"), 2, "Missing option '--scope'"),
        (("create", "eve", "--scope", "root"), 2, "'read', 'submit', 'work', 'admin'"),
        (("create", "eve", "--scope", "read", "--expires-days", "0"), 2, "--expires-days"),
        (("revoke", "adda"), 1, "did you mean 'ada'?"),
    ):
        result = run("token", *arguments, "--database", database)
        assert (result.exit_code, words in " ".join(result.stderr.split())) == (code, True), result.stderr


def test_the_token_comes_from_a_file_or_the_environment(
    database: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = subprocess.run(
        [*LR_ARENA, "serve", "--host", "0.0.0.0", "--port", "0", "--database", database],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (refused.returncode, "lr-arena token create NAME" in refused.stderr) == (2, True)

    token = run("token", "create", "ada", "--scope", "submit", "--database", database).stdout.strip()
    kept = tmp_path / "token"
    kept.write_text(f"{token}\n")
    url = serve("0.0.0.0", "127.0.0.1")

    monkeypatch.delenv("LR_ARENA_TOKEN", raising=False)
    without = run("studies", server=url)
    assert (without.exit_code, "LR_ARENA_TOKEN or --token-file" in without.stderr) == (1, True)
    assert "there is no study yet" in run("studies", "--token-file", str(kept), server=url).stdout
    monkeypatch.setenv("LR_ARENA_TOKEN", "lra_wrong")
    assert "does not know this token" in run("studies", server=url).stderr
    assert run("studies", "--token-file", str(kept), server=url).exit_code == 0, "the file goes first"
    monkeypatch.setenv("LR_ARENA_TOKEN", token)
    assert run("studies", server=url).exit_code == 0

    (tmp_path / "empty").write_text("\n")
    for file, words in (("empty", "the file is empty"), ("none", "cannot be read")):
        result = run("studies", "--token-file", str(tmp_path / file), server=url)
        assert (result.exit_code, words in " ".join(result.stderr.replace("│", " ").split())) == (2, True)
    monkeypatch.setenv("LR_ARENA_TOKEN", "two words")
    bad = run("studies", server=url)
    assert (bad.exit_code, "token: must be one word" in bad.stderr) == (2, True)
    assert "two words" not in bad.stderr

    assert run("token", "revoke", "ada", "--database", database).stdout == "token ada: revoked\n"
    with Client(url, token) as client:
        assert "the token ada was revoked" in first_refusal(client)


def first_refusal(client: Client) -> str:
    """What a running service says once it has heard of the end of the token."""
    while True:
        try:
            client.studies()
        except Refused as error:
            return str(error)
