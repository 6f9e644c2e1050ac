"""What two deployments may need to set differently; from the command line or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from service.clock import SECOND
from studies.errors import ArenaError

DEFAULT_DATABASE = "sqlite:///lr-arena.db"


@dataclass(frozen=True)
class Settings:
    """The service's settings. Its processes are told them by the environment: an address may hold a password.

    database: an SQLAlchemy URL. lease_seconds: how long a worker may be silent before its trials go
    to others; workers report several times within it.
    """

    database: str = DEFAULT_DATABASE
    lease_seconds: float = 60.0

    @property
    def lease(self) -> int:
        """The length of a lease in microseconds."""
        return int(self.lease_seconds * SECOND)

    @property
    def as_environment(self) -> dict[str, str]:
        """What `from_environment` reads them from."""
        return {"LR_ARENA_DATABASE": self.database, "LR_ARENA_LEASE_SECONDS": str(self.lease_seconds)}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: str | None) -> Settings:
        """LR_ARENA_DATABASE and LR_ARENA_LEASE_SECONDS; what is given by name goes first."""
        lease = environment.get("LR_ARENA_LEASE_SECONDS", str(cls.lease_seconds))
        try:
            lease_seconds = float(lease)
        except ValueError:
            lease_seconds = 0.0
        if not 0.5 <= lease_seconds <= 86_400:
            raise ArenaError(f"LR_ARENA_LEASE_SECONDS must be a number from 0.5 to 86400, but got {lease!r}")
        database = given.get("database") or environment.get("LR_ARENA_DATABASE") or DEFAULT_DATABASE
        return cls(database=database, lease_seconds=lease_seconds)
