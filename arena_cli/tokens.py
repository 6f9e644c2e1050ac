"""`lr-arena token`: makes, lists and revokes tokens, in the database itself rather than through the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arena_cli import tables
from arena_cli.failures import require_service
from studies.protocol import Scope

if TYPE_CHECKING:
    from service.auth import Token

app = typer.Typer(help="Make, list and revoke the tokens of a service; works on its database.", no_args_is_help=True)


class _Format(StrEnum):
    TABLE = "table"
    JSON = "json"


Database = Annotated[
    str | None,
    typer.Option(metavar="URL", help="As for serve; left out: LR_ARENA_DATABASE, else sqlite:///lr-arena.db here."),
]
Name = Annotated[str, typer.Argument(help="The name of a token, such as the one who has it.", metavar="NAME")]
OutputFormat = Annotated[_Format, typer.Option("--format", help="How to print it; json is for programs.")]


@app.command()
def create(
    name: Name,
    scope: Annotated[
        list[Scope],
        typer.Option(
            help="read: look; submit: that, and start, pause and cancel studies; work: be given trials, as workers "
            "are; admin: all of it. May be repeated."
        ),
    ],
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="The token is good for so many days; left out: until revoked.")
    ] = None,
    output: OutputFormat = _Format.TABLE,
    database: Database = None,
) -> None:
    """Make a token and print it, once: only its digest is kept. With the first one, every request needs one."""
    with _database(database) as engine:
        from service import auth
        from service.clock import SECOND, system_clock
        from service.database import writing

        now = system_clock()
        expires_at = None if expires_days is None else now + expires_days * 86_400 * SECOND
        with writing(engine) as connection:
            is_first = not auth.list_tokens(connection)
            token = auth.create(connection, name, scope, expires_at, now)
            made = next(one for one in auth.list_tokens(connection) if one.name == name)
    if is_first:
        typer.echo("this is the first token: from now on the service answers nobody without one", err=True)
    if output is _Format.JSON:
        _print_json({**_as_data(made, now), "token": token})
    else:
        typer.echo(token)
        typer.echo("shown once: keep it in a file that only you can read, or in LR_ARENA_TOKEN", err=True)


@app.command("list")
def list_all(output: OutputFormat = _Format.TABLE, database: Database = None) -> None:
    """List the tokens: names, scopes, until when they are good. The tokens themselves are kept nowhere."""
    with _database(database) as engine:
        from service import auth
        from service.clock import system_clock
        from service.database import reading

        now = system_clock()
        with reading(engine) as connection:
            rows = [_as_data(token, now) for token in auth.list_tokens(connection)]
    if output is _Format.JSON:
        _print_json(rows)
    elif rows:
        tables.console().print(tables.tokens_table(rows))
    else:
        typer.echo("there is no token: the service answers everybody on its own machine, and nobody else")


@app.command()
def revoke(name: Name, database: Database = None) -> None:
    """Make a token useless, for running services within a second. Once more changes nothing."""
    with _database(database) as engine:
        from service import auth
        from service.clock import system_clock
        from service.database import writing

        with writing(engine) as connection:
            auth.revoke(connection, name, system_clock())
    typer.echo(f"token {name}: revoked")


@contextmanager
def _database(url: str | None) -> Iterator[Any]:
    """The database, brought to this release's schema as `serve` does."""
    require_service()
    from service.database import open_database
    from service.schema import migrate
    from service.settings import Settings

    engine = open_database(Settings.from_environment(database=url).database)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def _as_data(token: Token, now: int) -> dict[str, Any]:
    from service.clock import iso, iso_or_none

    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "state": token.fault(now) or "good",
        "created_at": iso(token.created_at),
        "expires_at": iso_or_none(token.expires_at),
        "revoked_at": iso_or_none(token.revoked_at),
    }


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
