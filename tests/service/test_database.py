from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

import service
from service.database import ChangeSignal, open_database, reading, writing
from service.migrations.views import VIEWS
from service.schema import migrate
from service.tables import director, metadata, studies
from studies.errors import DatabaseError
from tests.databases import Databases
from tests.service.support import LEASE_SECONDS, Worker, run_service, run_to_end


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = open_database(f"sqlite:///{tmp_path / 'arena.db'}")
    migrate(made)
    return made


def test_the_migrations_give_what_the_tables_say(engine: Engine) -> None:
    with reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def statements(engine: Engine) -> dict[str, list[str]]:
    """What SQLite keeps of each table and index, in an order of its own."""
    query = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    with engine.connect() as connection:
        return {
            # A table that was made anew has quotes around its name; columns added later share a line.
            row.name: sorted(
                line.strip().rstrip(",").replace('"', "")
                for part in row.sql.splitlines()
                for line in re.split(r", (?=\w+ [A-Z]+)(?![^(]*\))", part)
            )
            for row in connection.execute(text(query))
            if row.name != "alembic_version"
        }


def test_the_migrations_give_every_constraint_of_the_tables(tmp_path: Path, engine: Engine) -> None:
    """Alembic does not compare CHECK constraints: the statements that SQLite keeps are compared here."""
    direct = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    metadata.create_all(direct)
    assert statements(engine) == statements(direct)
    direct.dispose()


CATALOGUE = """
SELECT c.conrelid::regclass || ' ' || c.conname AS name, pg_get_constraintdef(c.oid) AS definition
FROM pg_constraint c WHERE c.connamespace = 'public'::regnamespace
UNION ALL SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_stat_user_indexes
UNION ALL SELECT table_name || '.' || column_name, concat_ws(' ', data_type, column_default, is_nullable)
FROM information_schema.columns WHERE table_schema = 'public'
"""


def test_the_migrations_give_what_the_tables_say_on_postgresql(databases: Databases) -> None:
    """Tables, columns with their defaults, indices, and every constraint as PostgreSQL writes it."""
    server = databases.postgresql
    by_migrations, direct = (open_database(server.new_database()) for _ in range(2))
    migrate(by_migrations)
    metadata.create_all(direct)
    with direct.begin() as connection:
        for view in VIEWS:
            connection.execute(text(view))
    with reading(by_migrations) as one, reading(direct) as other:
        assert compare_metadata(MigrationContext.configure(one), metadata) == []
        found, expected = (
            {row.name: row.definition for row in c.execute(text(CATALOGUE)) if "alembic" not in row.name}
            for c in (one, other)
        )
    assert found == expected
    assert len(found) > 150
    by_migrations.dispose()
    direct.dispose()


def test_a_database_of_the_first_schema_is_upgraded_on_postgresql(databases: Databases) -> None:
    engine = open_database(databases.postgresql.new_database())
    to_first_schema(engine)
    with writing(engine) as connection:
        connection.execute(
            text("INSERT INTO studies (name, state, definition, created_at) VALUES ('old', 'running', '{}', 1)")
        )
    migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(select(studies.c.name, studies.c.priority, studies.c.search_closed)).all() == [
            ("old", 0, "")
        ]
    engine.dispose()


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(studies).values(name="kept", state="running", definition={}, created_at=1))
    migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(select(studies.c.name)).scalars().all() == ["kept"]


Rows = dict[str, list[tuple[Any, ...]]]


def first_schema(file: Path) -> Engine:
    """An empty database as the first release made it."""
    engine = open_database(f"sqlite:///{file}")
    to_first_schema(engine)
    return engine


def to_first_schema(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(service.__file__).parent / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


def columns_of(engine: Engine) -> dict[str, list[str]]:
    found = sqlalchemy.inspect(engine)
    names = [name for name in found.get_table_names() if name != "alembic_version"]
    return {name: [column["name"] for column in found.get_columns(name)] for name in names}


def quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def rows_of(engine: Engine, columns: dict[str, list[str]]) -> Rows:
    """Everything in these columns, as SQLite holds it."""
    queries = {table: f"SELECT {quoted(names)} FROM {table} ORDER BY rowid" for table, names in columns.items()}
    with reading(engine) as connection:
        return {table: [tuple(row) for row in connection.exec_driver_sql(query)] for table, query in queries.items()}


@pytest.fixture(scope="module")
def begun_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the first release with a study half-way."""
    folder = tmp_path_factory.mktemp("begun")
    with run_service(f"sqlite:///{folder}/new.db") as running:
        running.submit(name="begun", search={"trials_per_schedule": 3, "sampler": "tpe"})
        worker = Worker(running.client)
        for _ in range(3):
            worker.finish(worker.next(running))
        worker.report(worker.next(running), [0, 1])
    made = first_schema(folder / "old.db")
    columns = columns_of(made)
    rows = rows_of(open_database(f"sqlite:///{folder / 'new.db'}"), columns)
    with unwatched(made) as connection:  # tables come in any order
        for table, found in rows.items():
            for row in found:
                insert = f"INSERT INTO {table} ({quoted(columns[table])}) VALUES ({', '.join('?' * len(row))})"
                connection.exec_driver_sql(insert, row)
    made.dispose()
    return folder / "old.db"


@contextmanager
def unwatched(engine: Engine) -> Iterator[Connection]:
    """A transaction in which foreign keys are not watched."""
    with engine.connect() as connection:
        connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            yield connection
        connection.connection.cursor().execute("PRAGMA foreign_keys = ON")


@pytest.fixture
def begun(begun_file: Path, tmp_path: Path) -> Engine:
    """A copy of it."""
    return open_database(f"sqlite:///{shutil.copy(begun_file, tmp_path / 'old.db')}")


def test_an_upgrade_keeps_every_row(begun: Engine) -> None:
    """Tables are made anew with children that would be deleted with them (ON DELETE CASCADE)."""
    columns = columns_of(begun)
    before = rows_of(begun, columns)
    assert {name: len(before[name]) for name in ("epochs", "attempts", "trials", "arms", "boards")} == {
        "epochs": 11,
        "attempts": 4,
        "trials": 6,
        "arms": 2,
        "boards": 1,
    }
    migrate(begun)
    assert rows_of(begun, columns) == before
    with reading(begun) as connection:
        query = "SELECT awaits_range_test, range_test, range_test_failure, range_curve FROM boards JOIN trials"
        assert {tuple(row) for row in connection.exec_driver_sql(query)} == {(0, None, "", None)}
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM arena_trials").scalar() == 6


def test_an_upgraded_database_has_every_constraint_and_watches_foreign_keys_again(
    begun: Engine, engine: Engine
) -> None:
    migrate(begun)
    assert statements(begun) == statements(engine)
    with writing(begun) as connection:
        connection.exec_driver_sql("DELETE FROM studies")
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM epochs").scalar() == 0


def test_a_study_begun_under_an_earlier_release_goes_on_to_its_end(begun: Engine, tmp_path: Path) -> None:
    begun.dispose()
    with run_service(f"sqlite:///{tmp_path}/old.db") as running:
        running.clock.advance(3600)
        running.director.step()  # after the outage the lease has its full length again
        running.clock.advance(LEASE_SECONDS + 1)
        run_to_end(running, "begun", Worker(running.client, id="second"))
        ended = [(trial.phase, trial.state) for trial in running.client.trials("begun")]
    assert ended == [("search", "completed")] * 6 + [("confirm", "completed")] * 4


def test_an_upgrade_that_would_leave_a_row_without_its_parent_changes_nothing(begun: Engine) -> None:
    with unwatched(begun) as connection:
        connection.exec_driver_sql("DELETE FROM attempts WHERE trial_id = 1")
    before = statements(begun)
    with pytest.raises(DatabaseError, match=r"was not changed: 3 rows of epochs refer to rows that are not there"):
        migrate(begun)
    assert statements(begun) == before


def test_a_database_of_a_newer_release_is_refused(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"newer release .*9999"):
        migrate(engine)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("arena.db", "not a database URL"),
        ("sqlite://", "give a file"),
        ("sqlite:///:memory:", "give a file"),
        ("mysql://host/arena", "not supported"),
        ("nosuch://host/arena", "not supported"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message):
        open_database(url)


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened"):
        migrate(open_database(f"sqlite:///{tmp_path}/no/such/folder/arena.db"))


def test_what_must_always_hold_is_held_by_the_database_itself(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match="ck_studies_state"), writing(engine) as connection:
        connection.execute(insert(studies).values(name="a", state="lost", definition={}, created_at=1))
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), writing(engine) as connection:
        connection.execute(text("INSERT INTO boards (study_id, task, position) VALUES (99, 't', 0)"))
    with pytest.raises(IntegrityError, match="ck_director_single"), writing(engine) as connection:
        connection.execute(insert(director).values(id=2, epoch=1, holder="x", expires_at=1))
    board = "INSERT INTO studies (id, name, state, definition, created_at) VALUES (1, 's', 'running', '{}', 1)"
    trial = (
        "INSERT INTO trials (study_id, task, lane, phase, number, seed, state, created_at, lease_expires_at) "
        "VALUES (1, 't', 'cosine', 'search', 0, 1, '{state}', 1, {lease})"
    )
    with writing(engine) as connection:
        connection.execute(text(board))
        connection.execute(text("INSERT INTO boards (study_id, task, position) VALUES (1, 't', 0)"))
    for state, lease, name in [
        ("planned", 5, "one_live_lease"),
        ("ready", "NULL", "configured"),
        ("completed", "NULL", "ck_trials"),
    ]:
        with pytest.raises(IntegrityError, match=name), writing(engine) as connection:
            connection.execute(text(trial.format(state=state, lease=lease)))
    with writing(engine) as connection:
        connection.execute(text(trial.format(state="planned", lease="NULL")))
    with pytest.raises(IntegrityError, match="UNIQUE"), writing(engine) as connection:
        connection.execute(text(trial.format(state="planned", lease="NULL")))


def test_a_failed_transaction_leaves_nothing(engine: Engine) -> None:
    def fail_halfway() -> None:
        with writing(engine) as connection:
            connection.execute(insert(studies).values(name="half", state="running", definition={}, created_at=1))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    with reading(engine) as connection:
        assert connection.execute(select(studies)).all() == []


def test_the_signal_tells_of_commits_and_of_nothing_else(database: str) -> None:
    engine = open_database(database)
    signal = ChangeSignal(engine)
    assert signal.changed()
    assert not signal.changed()
    with reading(engine) as connection:
        connection.execute(select(studies)).all()
    assert not signal.changed()
    with writing(engine) as connection:
        connection.execute(insert(studies).values(name="a", state="running", definition={}, created_at=1))
    assert signal.changed()
    assert not signal.changed()
    signal.close()
    engine.dispose()
