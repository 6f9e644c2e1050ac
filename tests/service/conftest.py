from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.support import Service, Worker, run_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with run_service(tmp_path / "arena.db") as running:
        yield running


@pytest.fixture
def worker(service: Service) -> Worker:
    return Worker(service.client)
