"""A real agent of one slot whose every word with the service is written down, by the agent's own process."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

import httpx

from benchmarks.cluster.notes import SUFFIX, Notes
from benchmarks.cluster.trainer import EPOCH_SECONDS, NOTES
from studies.client import Client
from studies.protocol import API_PREFIX
from workers.agent import run_agent

ROOT = Path(__file__).parents[2]
REPORT_SECONDS = 0.2
"""How often epochs are reported; shorter than users have it, so that there is more to be lost."""


class Noting(httpx.BaseTransport):
    """The network, with notes of each answer that has come, and of when its request was sent."""

    def __init__(self, notes: Notes) -> None:
        self._network = httpx.HTTPTransport()
        self._notes = notes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See the class."""
        sent = time.monotonic()
        response = self._network.handle_request(request)
        response.read()
        if response.headers.get("content-type", "").startswith(("application/json", "application/problem+json")):
            self._notes.write(
                "answer",
                about=request.url.path.removeprefix(f"{API_PREFIX}/"),
                sent=sent,
                status=response.status_code,
                request=json.loads(request.content),
                answer=json.loads(response.content),
            )
        return response

    def close(self) -> None:
        """Close the connections."""
        self._network.close()


def main(url: str, worker_id: str, folder: str, epoch_seconds: float) -> None:
    """Work until SIGTERM, or until the process that started this one is gone."""
    _end_with_parent()
    notes = Path(folder) / f"{worker_id}{SUFFIX}"
    os.environ[NOTES] = str(Path(folder) / f"{worker_id}-trainer{SUFFIX}")
    os.environ[EPOCH_SECONDS] = str(epoch_seconds)
    os.environ["PYTHONPATH"] = str(ROOT)
    logging.basicConfig(
        filename=Path(folder) / f"{worker_id}.log", level=logging.INFO, format="%(asctime)s %(message)s"
    )
    with (Path(folder) / f"{worker_id}.log").open("ab") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    sys.exit(
        run_agent(
            Client(url, transport=Noting(Notes(notes))),
            worker_id=worker_id,
            name=worker_id,
            slots=1,
            gpus="none",
            trainer_command=[sys.executable, "-m", "benchmarks.cluster.trainer"],
            report_interval_seconds=REPORT_SECONDS,
        )
    )


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
