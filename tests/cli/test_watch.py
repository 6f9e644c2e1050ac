"""Watching a study."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from arena_cli.watch import Lines, LiveScreen, Snapshot, ctrl_c_is_kept, progress_line, watch
from studies.errors import Refused
from tests.cli.conftest import LR_ARENA, Arena, made_up, start_service, stop_service, write_study
from tests.service.support import Worker, small_study


class Watching:
    """An `lr-arena` process whose output is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*LR_ARENA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def end(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        return code


@contextmanager
def watching(*arguments: str) -> Iterator[Watching]:
    started = Watching(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.end()
        assert started.process.stdout is not None
        started.process.stdout.close()


def test_submitting_with_watch_ends_with_the_study_and_prints_the_leaderboard(arena: Arena, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", name="followed")
    with watching("submit", str(file), "--watch", "--server", arena.url) as process:
        process.until("followed: ")
        arena.finish("followed")
        assert process.end() == 0
    assert "created study followed" in process.output
    assert "by the mean test accuracy over fresh seeds" in process.output
    assert process.output.endswith("study followed: finished\n")


def test_watching_a_finished_study_prints_its_leaderboard_at_once(arena: Arena, finished: str) -> None:
    result = arena.run("watch", finished)
    assert result.exit_code == 0
    assert "search 4/4; confirm 4/4; leading: cosine, test accuracy 0.95050 ± 0.00071" in result.stdout


def test_watching_ends_with_1_when_the_study_is_cancelled(arena: Arena) -> None:
    arena.client.submit(small_study(name="given-up", tasks=["nobody-has-it"]))
    with watching("watch", "given-up", "--server", arena.url) as process:
        process.until("waiting_for_task")
        process.until("no worker has announced the task")
        arena.client.cancel("given-up")
        assert process.end() == 1
    assert "study given-up: cancelled" in process.output


def test_ctrl_c_stops_only_the_watching_and_says_how_to_go_on(arena: Arena) -> None:
    arena.client.submit(small_study(name="left-alone", tasks=["nobody-has-it"]))
    with watching("watch", "left-alone", "--server", arena.url) as process:
        process.until("left-alone: ")
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 130
    assert f"To watch it again: lr-arena watch left-alone --server {arena.url}" in process.output
    assert arena.client.study("left-alone").state == "waiting_for_task"


class Freed:
    """Ctrl-C is pressed just while this is freed."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_ctrl_c_is_not_lost_where_python_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    muttered: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: muttered.append(unraisable.exc_type))
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_is_kept() as look:
        look()
        Freed()
        assert muttered == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            look()
    assert signal.getsignal(signal.SIGINT) == before


def test_watching_outlives_a_restart_of_the_service(tmp_path: Path) -> None:
    first = start_service(tmp_path / "arena.db")
    first.client.submit(small_study(name="patient"))
    with watching("watch", "patient", "--server", first.url) as process:
        process.until("patient: ")
        assert stop_service(first) == 0
        process.until("waiting until the service is back")
        second = start_service(tmp_path / "arena.db", port=urlsplit(first.url).port or 0)
        try:
            process.until("the service is back")
            second.finish("patient")
            assert process.end() == 0
        finally:
            stop_service(second)
    assert process.output.count("waiting until the service is back") == 1


def test_a_service_that_was_never_there_is_not_waited_for(arena: Arena) -> None:
    result = arena.run("watch", "some-study", "--server", "http://127.0.0.1:1")
    assert result.exit_code == 1


def test_an_unknown_study_is_not_waited_for(arena: Arena) -> None:
    assert arena.run("watch", "no-such-study").exit_code == 1


# --- in a terminal


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, markup=False, highlight=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_terminal_each_arm_has_its_bars_and_the_order_of_the_ranking(arena: Arena) -> None:
    study = arena.client.submit(small_study(name="half-way")).name
    worker = Worker(arena.client, id="half-way-worker")
    for _ in range(3):
        (trial,) = worker.claim(wait_seconds=5)
        assert trial.study == study
        worker.finish(trial, made_up(trial))
    snapshot = Snapshot(arena.client.study(study), arena.client.leaderboard(study=study))
    console = terminal()
    with LiveScreen(console) as screen:
        screen.show(snapshot)
        screen.note("the service is back")
    text = shown(console)
    assert "half-way: running, 3/" in " ".join(text.split()).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "━" in text
    assert text.index("cosine") < text.index("constant")
    assert "1/2" in text
    assert "2/2" in text
    assert "the service is back" in text
    arena.finish(study)


def test_in_a_terminal_the_leaderboard_stands_at_the_end(arena: Arena, finished: str) -> None:
    console = terminal()
    end = watch(arena.client, finished, console)
    assert end.study.state == "finished"
    assert "0.95050 ± 0.00071" in shown(console)
    assert shown(console).endswith("study finished: finished\n")


def test_whoever_watches_may_be_stopped_between_two_looks(arena: Arena, finished: str) -> None:
    def fail() -> None:
        raise Refused(500, {"detail": "enough"})

    with pytest.raises(Refused, match="enough"):
        watch(arena.client, finished, terminal(), before_each_look=fail)


def test_range_tests_are_told_of_until_they_have_ended_and_what_they_found_once(arena: Arena) -> None:
    study = arena.client.submit(small_study(name="sought", learning_rate="auto", confirm={"seeds": 0})).name
    before = Snapshot(arena.client.study(study), arena.client.leaderboard(study=study))
    assert progress_line(before) == "sought: running; range test 0/1; search 0/4"
    arena.finish(study)
    after = Snapshot(arena.client.study(study), arena.client.leaderboard(study=study))
    assert "range test" not in progress_line(after)
    console = Console(file=io.StringIO(), width=200)
    with Lines(console) as lines:
        for snapshot in (before, after, after):
            lines.show(snapshot)
    assert shown(console).count("the base rate is searched from") == 1
    drawn = terminal()
    with LiveScreen(drawn) as screen:
        screen.show(before)
    assert "the search waits for it" in shown(drawn)


def test_the_line_of_an_explore_study_counts_trials_without_a_schedule_too(arena: Arena) -> None:
    study = arena.client.submit(
        small_study(name="explored", search={"allocation": "explore", "trials_per_schedule": 3, "sampler": "random"})
    ).name
    snapshot = Snapshot(arena.client.study(study), arena.client.leaderboard(study=study))
    assert progress_line(snapshot).startswith("explored: running; search 0/6")
    arena.client.cancel(study)
