from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.client import Client
from studies.errors import Unreachable

TINY_TASK = Path(__file__).with_name("tiny_task.py")
LR_ARENA = Path(sys.executable).with_name("lr-arena")


NOT_IN_THE_SERVICE = ["keras", "tensorflow", "sklearn"]
NOT_IN_A_WORKER = ["sqlalchemy", "alembic", "optuna", "fastapi", "starlette", "uvicorn"]


def without(modules: list[str], folder: Path) -> dict[str, str]:
    """An environment in which Python, and every Python it starts, finds none of these modules."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {modules!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """`lr-arena serve` and `lr-arena worker --slots 2`, each where the other's packages are not installed."""
    folder = tmp_path_factory.mktemp("arena")
    service_environment = without(NOT_IN_THE_SERVICE, folder / "service")
    worker_environment = without(NOT_IN_A_WORKER, folder / "worker")
    with (folder / "log").open("w") as log:
        serve = subprocess.Popen(
            [LR_ARENA, "serve", "--port", "0", "--database", f"sqlite:///{folder / 'arena.db'}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=service_environment,
        )
        assert serve.stdout is not None
        url = serve.stdout.readline().split()[-1]
        worker = subprocess.Popen(
            [LR_ARENA, "worker", "--server", url, "--tasks", TINY_TASK, "--slots", "2", "--models", folder / "models"],
            stdout=log,
            stderr=log,
            env=worker_environment,
        )
        try:
            with Client(url) as client:
                until_answer(client)
                yield client
        finally:
            worker.terminate()
            serve.terminate()
            codes = worker.wait(30), serve.wait(30)
            serve.stdout.close()
    assert codes == (0, 0), (folder / "log").read_text()


def until_answer(client: Client, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            client.studies()
        except Unreachable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def run_to_end(client: Client, definition: dict[str, object], seconds: float = 200.0) -> str:
    name = client.submit(definition).name
    deadline = time.monotonic() + seconds
    while (view := client.study(name)).state != "finished":
        assert time.monotonic() < deadline, view
        time.sleep(0.1)
    return name
