"""docs/deploy.md: its commands are understood, its backup is one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine

from arena_cli.app import app
from service import auth
from service.clock import system_clock
from service.database import open_database, reading, writing
from service.schema import migrate, newest_schema, schema_of
from studies.protocol import Scope
from tests.databases import Databases

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
CONSOLE = [
    command
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]
IN_POSTGRES = "docker compose exec -T postgres "


def of_lr_arena() -> list[str]:
    """What the page has `lr-arena` do, in a shell, in a container, in a unit of systemd."""
    shell = [found[1] for command in CONSOLE if (found := re.match(r"lr-arena (.*)", command))]
    container = [found[1] for command in CONSOLE if (found := re.search(r"run --rm(?: -T)? service ([^>]*)", command))]
    other_node = [found[1] for command in CONSOLE if (found := re.search(r" lr-arena-worker (worker .*)", command))]
    units = re.findall(r"^ExecStart=\S+/lr-arena (.*)$", PAGE.read_text().replace("\\\n", " "), re.MULTILINE)
    inline = re.findall(r"`lr-arena ([a-z-]+ ?[A-Z]*)`", PAGE.read_text())
    return [*shell, *container, *other_node, *units, *(command.rstrip() for command in inline)]


@pytest.mark.parametrize("command", dict.fromkeys(of_lr_arena()))
def test_the_command_line_understands_what_the_page_says(command: str) -> None:
    words = shlex.split(command.replace("N`", "2"))
    found = typer.main.get_command(app)
    context = found.make_context("lr-arena", [*words], resilient_parsing=True)
    while hasattr(found, "get_command"):
        name, *words = words
        inner = found.get_command(context, name)
        assert inner is not None, f"there is no command {name}"
        found = inner
        context = found.make_context(name, [*words], parent=context, resilient_parsing=hasattr(found, "get_command"))


def test_a_backup_restored_as_the_page_says_has_everything_up_to_it(databases: Databases, tmp_path: Path) -> None:
    """The commands that the page runs in the container of PostgreSQL, in its order."""
    server = databases.postgresql
    commands = [command.removeprefix(IN_POSTGRES) for command in CONSOLE if command.startswith(IN_POSTGRES)]
    dump, drop, create, restore = commands[:4]
    assert [command.split()[0] for command in (dump, drop, create, restore)] == [
        "pg_dump",
        "dropdb",
        "createdb",
        "pg_restore",
    ]
    environment = {"PATH": f"{server.programs}:{os.environ['PATH']}", "PGHOST": str(server.folder)}

    def run(command: str) -> None:
        subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment, check=True)

    server.execute("CREATE ROLE arena SUPERUSER LOGIN")
    run(create)
    engine = open_database(server.url("arena"))
    migrate(engine)
    make_token(engine, "before")
    run(dump)
    make_token(engine, "after")
    engine.dispose()
    run(drop)
    run(create)
    (made,) = tmp_path.glob("arena-*.dump")
    run(restore.replace("arena-2026-01-31.dump", made.name))
    with reading(engine) as connection:
        assert [token.name for token in auth.list_tokens(connection)] == ["before"]
        assert schema_of(connection) == newest_schema()
    engine.dispose()
    run(drop)
    server.execute("DROP ROLE arena")


def make_token(engine: Engine, name: str) -> None:
    with writing(engine) as connection:
        auth.create(connection, name, [Scope.READ], None, system_clock())
