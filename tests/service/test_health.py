"""/healthz and /readyz: what a load balancer and a container's health check ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text

from service.app import create_app
from service.database import open_database, writing
from service.settings import Settings
from tests.databases import Databases


class Served:
    """A web application without a socket; its loop runs while it is asked."""

    def __init__(self, database: str, runner: asyncio.Runner) -> None:
        self.app = create_app(Settings(database))
        self._runner = runner
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1")

    def get(self, path: str) -> httpx.Response:
        return self._runner.run(self._client.get(path))


@pytest.fixture
def served(database: str) -> Iterator[Served]:
    with asyncio.Runner() as runner:
        served = Served(database, runner)
        lifespan = served.app.router.lifespan_context(served.app)
        runner.run(lifespan.__aenter__())
        yield served
        runner.run(lifespan.__aexit__(None, None, None))


@contextmanager
def away(served: Served, database: str, databases: Databases) -> Iterator[None]:
    """The database cannot be reached: SQLite's file is not there, PostgreSQL lets nobody in."""
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        file = Path(str(url.database))
        if hasattr(served.app.state, "arena"):
            served.app.state.arena.engine.dispose()  # else it holds the file open
        file.rename(file.with_suffix(".moved"))
        file.mkdir()
        yield
        file.rmdir()
        file.with_suffix(".moved").rename(file)
        return
    databases.postgresql.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
    databases.postgresql.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{url.database}'"
    )
    yield
    databases.postgresql.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true")


def test_a_web_process_that_starts_without_its_database_serves_as_soon_as_it_is_there(
    database: str, databases: Databases
) -> None:
    """As one does that was killed while the database was away."""
    with asyncio.Runner() as runner:
        served = Served(database, runner)
        lifespan = served.app.router.lifespan_context(served.app)
        with away(served, database, databases):
            runner.run(lifespan.__aenter__())
            assert served.get("/healthz").status_code == 200
            assert is_refused(served.get("/readyz"))
        assert served.get("/readyz").json() == {"status": "ok"}
        assert served.get("/api/v1/studies").json() == []
        runner.run(lifespan.__aexit__(None, None, None))


def is_refused(answer: httpx.Response) -> bool:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    return int(answer.headers["Retry-After"]) > 0


def test_a_service_without_its_database_is_alive_but_not_ready_until_it_is_back(
    served: Served, database: str, databases: Databases
) -> None:
    assert served.get("/readyz").json() == {"status": "ok"}
    with away(served, database, databases):
        for _ in range(2):
            assert is_refused(served.get("/readyz"))
        assert served.get("/healthz").status_code == 200
    assert served.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("change", "shown"),
    [("UPDATE alembic_version SET version_num = '0999'", "schema 0999"), ("DROP TABLE alembic_version", "schema none")],
)
def test_a_service_is_not_ready_for_tables_of_another_release(
    served: Served, database: str, change: str, shown: str
) -> None:
    engine = open_database(database)
    with writing(engine) as connection:
        connection.execute(text(change))
    engine.dispose()
    answer = served.get("/readyz")
    assert is_refused(answer)
    assert shown in answer.json()["detail"]
    assert served.get("/healthz").status_code == 200
