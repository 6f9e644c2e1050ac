"""The revision of a study's history: it grows by one with every trial that ends.

A reader that has seen revision r asks for what has a larger one. Taking the next revision locks the
study's row until the commit, so revisions become visible in their order.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select, update

from service.tables import studies


def advance(connection: Connection, study_id: int) -> int:
    """The next revision of the study, for a trial that ends in this transaction."""
    return int(connection.execute(ADVANCE, {"study": study_id}).scalar_one())


def open_revisions(connection: Connection) -> dict[int, int]:
    """The studies that have not ended, with their revisions."""
    return {row.id: row.revision for row in connection.execute(_OPEN)}


_OPEN = select(studies.c.id, studies.c.revision).where(studies.c.finished_at.is_(None))
ADVANCE = (
    update(studies)
    .where(studies.c.id == bindparam("study"))
    .values(revision=studies.c.revision + 1)
    .returning(studies.c.revision)
)
