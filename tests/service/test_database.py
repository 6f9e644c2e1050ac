from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from service.database import ChangeSignal, migrate, open_database, reading, writing
from service.tables import director, metadata, studies
from studies.errors import DatabaseError


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = open_database(f"sqlite:///{tmp_path / 'arena.db'}")
    migrate(made)
    return made


def test_the_migrations_give_what_the_tables_say(engine: Engine) -> None:
    with reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_migrations_give_every_constraint_of_the_tables(tmp_path: Path, engine: Engine) -> None:
    """Alembic does not compare CHECK constraints: the statements that SQLite keeps are compared here."""
    direct = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    metadata.create_all(direct)

    def statements(which: Engine) -> dict[str, list[str]]:
        query = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
        with which.connect() as connection:
            return {
                row.name: sorted(line.strip().rstrip(",") for line in row.sql.splitlines())
                for row in connection.execute(text(query))
                if row.name != "alembic_version"
            }

    assert statements(engine) == statements(direct)
    direct.dispose()


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(studies).values(name="kept", state="running", definition={}, created_at=1))
    migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(select(studies.c.name)).scalars().all() == ["kept"]


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


def test_the_signal_tells_of_commits_and_of_nothing_else(engine: Engine) -> None:
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
