"""What the service is still to be told, and which message is to be sent next. Pure: time comes in as `now`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from studies.protocol import (
    MAX_BATCH,
    Answer,
    Assignment,
    EpochRecord,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialReport,
    TrialResult,
)

EPOCHS_PER_TRIAL = 5000
"""The most epochs of one trial in one message; after a long outage they go in several."""
MESSAGE_BYTES = 1_000_000
"""How long a message's JSON may become, but for a frame of some bytes for each trial in it."""

Message = ReportRequest | ResultRequest | ReleaseRequest
Part = TrialReport | TrialResult | TrialRelease
_End = TypeVar("_End", TrialResult, TrialRelease)


@dataclass
class _Lease:
    trial_id: int
    heartbeat_seconds: float
    last_heard: float
    epochs: list[EpochRecord] = field(default_factory=list)
    end: TrialResult | TrialRelease | None = None

    def heartbeat_at(self) -> float:
        return self.last_heard + self.heartbeat_seconds


def parts_of(message: Message) -> Sequence[Part]:
    """What a message says of each of its leases."""
    return message.trials


class Outbox:
    """Epochs, results and releases of the leases held, kept until the service has acknowledged them.

    Epochs of all trials go together, at most once per `report_interval` seconds, and a lease of which
    nothing was heard for a third of its time goes along without any. A result goes at once and takes its
    trial's epochs with it; a release waits for them.
    """

    def __init__(self, worker_id: str, report_interval: float) -> None:
        self._worker_id = worker_id
        self._report_interval = report_interval
        self._last_report = float("-inf")
        self._leases: dict[str, _Lease] = {}

    def hold(self, assignment: Assignment, now: float) -> None:
        """Keep this lease alive from now on."""
        self._leases[assignment.token] = _Lease(assignment.trial_id, assignment.lease_seconds / 3, now)

    def add(self, token: str, epoch: EpochRecord) -> None:
        """An epoch to be told; of no concern if the lease is not held any more."""
        if token in self._leases:
            self._leases[token].epochs.append(epoch)

    def end(self, end: TrialResult | TrialRelease) -> None:
        """A lease's end to be told."""
        if end.token in self._leases:
            self._leases[end.token].end = end

    def drop(self, token: str) -> None:
        """Say no more about a lease."""
        self._leases.pop(token, None)

    def hurry(self) -> None:
        """From now on, report without waiting for the interval."""
        self._report_interval = 0.0

    @property
    def heartbeat_seconds(self) -> float:
        """How often something is to be heard of the lease that runs out first; inf without leases."""
        return min((lease.heartbeat_seconds for lease in self._leases.values()), default=float("inf"))

    @property
    def unsaid(self) -> int:
        """The number of results and releases that are not acknowledged yet."""
        return sum(lease.end is not None for lease in self._leases.values())

    @property
    def is_clear(self) -> bool:
        """Whether everything that there was to say is acknowledged."""
        return not any(lease.end or lease.epochs for lease in self._leases.values())

    def next(self, now: float) -> Message | None:
        """The message to send now, if any. Sending it again, or one with more in it, does no harm."""
        return self._results() or self._report(now) or self._releases()

    def next_at(self) -> float:
        """When there will be something to send if nothing is added; inf for never."""
        times = [lease.heartbeat_at() for lease in self._leases.values()]
        if any(lease.epochs for lease in self._leases.values()):
            times.append(self._last_report + self._report_interval)
        return min(times, default=float("inf"))

    def acknowledge(self, message: Message, answers: list[Answer], now: float) -> None:
        """Forget what the service has taken, or does not want."""
        for part, answer in zip(parts_of(message), answers, strict=True):
            lease = self._leases.get(part.token)
            if lease is None:
                continue
            if isinstance(part, TrialReport) and answer.status == 200:
                del lease.epochs[: len(part.epochs)]
                lease.last_heard = now
            else:
                del self._leases[part.token]

    def _results(self) -> ResultRequest | None:
        results = [
            lease.end.model_copy(update={"epochs": list(lease.epochs)})
            for lease in self._leases.values()
            if isinstance(lease.end, TrialResult) and _fitting(lease.epochs, MESSAGE_BYTES)[0] == len(lease.epochs)
        ]
        return ResultRequest(worker_id=self._worker_id, trials=_first_of(results)) if results else None

    def _report(self, now: float) -> ReportRequest | None:
        in_time = now >= self._last_report + self._report_interval
        reports: list[TrialReport] = []
        room = MESSAGE_BYTES
        for token, lease in self._leases.items():
            has_news = bool(lease.epochs) and (in_time or lease.end is not None)
            if not has_news and now < lease.heartbeat_at():
                continue
            count, size = _fitting(lease.epochs, room)
            room -= size
            reports.append(TrialReport(trial_id=lease.trial_id, token=token, epochs=lease.epochs[:count]))
        if not reports:
            return None
        self._last_report = now
        return ReportRequest(worker_id=self._worker_id, trials=reports[:MAX_BATCH])

    def _releases(self) -> ReleaseRequest | None:
        releases = [
            lease.end for lease in self._leases.values() if isinstance(lease.end, TrialRelease) and not lease.epochs
        ]
        return ReleaseRequest(worker_id=self._worker_id, trials=_first_of(releases)) if releases else None


def _fitting(epochs: Sequence[EpochRecord], room: int) -> tuple[int, int]:
    """How many of these epochs, the first ones, fit into one message with so much room; and their size in bytes."""
    taken = 0
    for count, epoch in enumerate(epochs[:EPOCHS_PER_TRIAL]):
        size = len(epoch.model_dump_json().encode())
        if taken + size > room:
            return count, taken
        taken += size
    return min(len(epochs), EPOCHS_PER_TRIAL), taken


def _first_of(ends: Sequence[_End]) -> list[_End]:
    """As many of these ends, the first ones, as fit into one message; one at least."""
    room = MESSAGE_BYTES
    for count, end in enumerate(ends[:MAX_BATCH]):
        room -= len(end.model_dump_json().encode())
        if room < 0 and count:
            return list(ends[:count])
    return list(ends[:MAX_BATCH])
