"""Counts again, from what the workers wrote down for themselves, what the service says has happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from benchmarks.cluster.notes import read_notes
from service.database import open_database, reading
from service.tables import attempts, epochs, late_results, studies, trials
from studies.client import Client

RESULTS = ("completed", "pruned", "diverged", "failed")


@dataclass
class Recount:
    """What is not as it should be, in words.

    lost: planned trials without a result, and what a worker was told is kept and is not. doubled: trials that two
    workers were let run at a time, or that have two results. inconsistent: what differs from the workers' notes or
    from a count of the rows.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.lost or self.doubled or self.inconsistent)

    def expect(self, kind: list[str], what: str, found: object, expected: object) -> None:
        """Note a difference."""
        if found != expected:
            kind.append(f"{what}: {found!r}, and it should be {expected!r}")


@dataclass(frozen=True)
class _Told:
    """What a worker was told about one lease: in answer to a request sent at `sent`, as it was received."""

    worker: str
    about: str
    sent: float
    received: float
    part: dict[str, Any]
    answer: dict[str, Any]

    @property
    def token(self) -> str:
        return str(self.part["token"])


@dataclass
class Notebook:
    """All that the workers and their training processes wrote down.

    handed: the leases, by token, as (worker, when the answer came, the assignment). trained: by token, the value of
    each epoch. ended: the tokens of the trainings that came to their end.
    """

    handed: dict[str, tuple[str, float, dict[str, Any]]] = field(default_factory=dict)
    twice_handed: list[str] = field(default_factory=list)
    told: list[_Told] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)
    trained: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    ended: set[str] = field(default_factory=set)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    @classmethod
    def read(cls, folder: Path) -> Notebook:
        """The notes of a folder."""
        book = cls()
        for note in read_notes(folder):
            match note["event"]:
                case "started":
                    book.started[note["token"]] += 1
                case "epoch":
                    book.trained[note["token"]][note["epoch"]] = note["value"]
                case "ended":
                    book.ended.add(note["token"])
                case "answer":
                    book._hear(note)
        return book

    def _hear(self, note: dict[str, Any]) -> None:
        self.statuses[note["about"], note["status"]] += 1
        if note["about"] == "claims" and note["status"] == 200:
            for assignment in note["answer"]["trials"]:
                holder, *_ = self.handed.setdefault(assignment["token"], (note["writer"], note["at"], assignment))
                if holder != note["writer"]:
                    self.twice_handed.append(f"{assignment['token']} was given to {holder} and to {note['writer']}")
        elif "trials" in note["answer"]:
            for part, answer in zip(note["request"]["trials"], note["answer"]["trials"], strict=True):
                self.told.append(_Told(note["writer"], note["about"], note["sent"], note["at"], part, answer))


def recount(study: str, planned: int, epochs_per_trial: int, database: str, folder: Path, client: Client) -> Recount:
    """Compare the database, what the service says, and the workers' notes, once all is over."""
    book = Notebook.read(folder)
    engine = open_database(database)
    with reading(engine) as connection:
        study_row = connection.execute(select(studies).where(studies.c.name == study)).one()
        rows = {row.id: row for row in connection.execute(select(trials).where(trials.c.study_id == study_row.id))}
        tries = connection.execute(select(attempts).order_by(attempts.c.trial_id, attempts.c.attempt)).all()
        kept: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        for row in connection.execute(select(epochs.c.trial_id, epochs.c.attempt, epochs.c.epoch, epochs.c.value)):
            kept[row.trial_id, row.attempt][row.epoch] = row.value
        late = set(connection.execute(select(late_results.c.token)).scalars())
    engine.dispose()
    found = Recount()
    found.counts.update(f"answers {status} to {about}" for about, status in book.statuses.elements())
    found.counts.update(f"attempts {attempt.end}" for attempt in tries)
    found.counts["late results kept"] = len(late)
    found.counts["epochs told"] = sum(len(told.part.get("epochs", ())) for told in book.told)
    by_token = {attempt.token: attempt for attempt in tries}
    for (about, status), times in sorted(book.statuses.items()):
        if status not in (200, 409, 503):
            found.inconsistent.append(f"{times} answers {status} to {about}")
    _check_acknowledged(found, book, by_token, kept, late)
    _check_leases(found, book, by_token)
    _check_trials(found, book, rows, tries, kept, planned, epochs_per_trial)
    _check_counts(found, study, study_row, rows.values(), client)
    return found


def _check_acknowledged(
    found: Recount,
    book: Notebook,
    by_token: dict[str, Row[Any]],
    kept: dict[tuple[int, int], dict[int, float]],
    late: set[str],
) -> None:
    """What a worker was told is kept must be there."""
    for told in book.told:
        attempt = by_token.get(told.token)
        if attempt is None:
            found.lost.append(f"the attempt of {told.token}, which {told.worker} was answered about")
            continue
        if told.answer["status"] == 409:
            if told.about == "results" and told.token not in late:
                found.lost.append(f"the late result of {told.token} was refused and not kept")
            continue
        stored = kept[attempt.trial_id, attempt.attempt]
        for record in told.part.get("epochs", ()):
            (value,) = record["metrics"].values()
            if record["epoch"] not in stored:
                found.lost.append(f"epoch {record['epoch']} of {told.token}, which was acknowledged")
            elif stored[record["epoch"]] != value:
                found.inconsistent.append(
                    f"epoch {record['epoch']} of {told.token}: {stored[record['epoch']]}, {value}"
                )
        end = {"results": told.part.get("outcome"), "releases": told.part.get("cause")}.get(told.about)
        if end is not None and attempt.end != end:
            found.lost.append(f"the end of {told.token}: {end} was acknowledged, and {attempt.end} is kept")


def _check_leases(found: Recount, book: Notebook, by_token: dict[str, Row[Any]]) -> None:
    """No two workers hold a trial at a time."""
    found.doubled += book.twice_handed
    found.doubled += [f"{token} was begun {times} times" for token, times in book.started.items() if times > 1]
    finished: dict[int, set[str]] = defaultdict(set)
    anew: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for token, (worker, received, assignment) in book.handed.items():
        anew[assignment["trial_id"]].append((assignment["attempt"], received))
        attempt = by_token.get(token)
        if attempt is None:
            found.lost.append(f"the attempt of {token}, which was handed to {worker}")
        else:
            lease = (attempt.trial_id, attempt.attempt, attempt.worker_id)
            expected = (assignment["trial_id"], assignment["attempt"], worker)
            found.expect(found.doubled, f"trial, attempt and worker of {token}", lease, expected)
    for told in book.told:
        trial, attempt = told.part["trial_id"], by_token.get(told.token)
        if told.answer["status"] != 200 or attempt is None:
            continue
        if told.about == "results":
            finished[trial].add(told.token)
        if told.answer["command"] == "continue" and any(
            number > attempt.attempt and received < told.sent for number, received in anew[trial]
        ):
            found.doubled.append(f"{told.token} was let go on although the trial had been leased anew")
    found.doubled += [f"trial {trial} has results of {len(of)} leases" for trial, of in finished.items() if len(of) > 1]


def _check_trials(
    found: Recount,
    book: Notebook,
    rows: dict[int, Row[Any]],
    tries: Sequence[Row[Any]],
    kept: dict[tuple[int, int], dict[int, float]],
    planned: int,
    epochs_per_trial: int,
) -> None:
    """Every planned trial has one result, which is what its worker trained."""
    found.lost += ["a planned trial"] * max(planned - len(rows), 0)
    found.doubled += ["a trial beyond the planned ones"] * max(len(rows) - planned, 0)
    of_trial: dict[int, list[Row[Any]]] = defaultdict(list)
    for attempt in tries:
        of_trial[attempt.trial_id].append(attempt)
        for epoch, value in kept[attempt.trial_id, attempt.attempt].items():
            found.expect(
                found.inconsistent, f"epoch {epoch} of {attempt.token}", value, book.trained[attempt.token].get(epoch)
            )
        if attempt.end is None:
            found.inconsistent.append(f"the attempt of {attempt.token} has no end")
    for row in rows.values():
        _check_trial(found, book, row, of_trial[row.id], epochs_per_trial)


def _check_trial(
    found: Recount, book: Notebook, row: Row[Any], tries: Sequence[Row[Any]], epochs_per_trial: int
) -> None:
    name = f"trial {row.id}"
    if row.state != "completed":
        found.lost.append(f"{name} is {row.state}: {row.reason}")
        return
    winners = [attempt for attempt in tries if attempt.end in RESULTS]
    if len(winners) != 1:
        found.doubled.append(f"{name} has {len(winners)} results")
        return
    (winner,) = winners
    found.expect(found.inconsistent, f"{name}: its attempts", [t.attempt for t in tries], [*range(1, row.attempt + 1)])
    found.expect(found.inconsistent, f"{name}: who ended it", (winner.attempt, winner.token), (row.attempt, row.token))
    for counter in ("crashed", "lost", "preempted"):
        counted = sum(attempt.end == counter for attempt in tries)
        found.expect(found.inconsistent, f"{name}: times {counter}", getattr(row, counter), counted)
    curve = book.trained[winner.token]
    if winner.token not in book.ended or sorted(curve) != list(range(epochs_per_trial)):
        found.inconsistent.append(f"{name} has a result that no worker trained")
        return
    best = max(curve, key=lambda epoch: curve[epoch])
    result = (row.value, row.best_value, row.best_epoch, row.last_value, row.last_epoch)
    last = epochs_per_trial - 1
    found.expect(found.inconsistent, f"{name}: its result", result, (curve[best], curve[best], best, curve[last], last))
    if winner.token in book.handed:
        assigned = book.handed[winner.token][2]["configuration"]
        found.expect(found.inconsistent, f"{name}: its configuration", row.configuration, assigned)


def _check_counts(found: Recount, study: str, study_row: Row[Any], rows: Iterable[Row[Any]], client: Client) -> None:
    """The counters, the study's page and the leaderboard agree with the rows."""
    rows = list(rows)
    ended = sorted(row.revision for row in rows if row.revision is not None)
    found.expect(found.inconsistent, "the revisions of the trials", ended, list(range(1, len(rows) + 1)))
    found.expect(found.inconsistent, "the study's revision", study_row.revision, len(ended))
    view = client.study(study)
    found.expect(found.inconsistent, "the study's state", view.state, "finished")
    found.expect(found.inconsistent, "trials finished", view.trials_finished, len(ended))
    of_lane = Counter((row.lane, row.state) for row in rows)
    for arm in view.arms:
        for state, number in arm.search.items():
            found.expect(found.inconsistent, f"{arm.schedule}, {state}", number, of_lane[arm.schedule, str(state)])
    for entry in client.leaderboard(study=study).entries:
        of_arm = [row for row in rows if row.lane == entry.schedule and row.state == "completed"]
        best = max((row.value for row in of_arm), default=None)
        found.expect(
            found.inconsistent, f"completed on the leaderboard, {entry.schedule}", entry.completed, len(of_arm)
        )
        found.expect(found.inconsistent, f"best on the leaderboard, {entry.schedule}", entry.search_value, best)
