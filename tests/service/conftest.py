from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.support import Service, Worker, run_service


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    with run_service(database) as running:
        yield running


@pytest.fixture
def worker(service: Service) -> Worker:
    return Worker(service.client)
