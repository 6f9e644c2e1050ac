"""What workers' messages about their trials have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.queue import Held
from studies.errors import FieldError, InvalidMessage
from studies.protocol import (
    Answer,
    ReleaseRequest,
    ReportRequest,
    ResultRequest,
    TrialRelease,
    TrialReport,
    TrialResult,
)

Request = ReportRequest | ResultRequest | ReleaseRequest


def check_distinct(request: Request) -> None:
    """Raises InvalidMessage if a trial stands twice in a message."""
    met: set[int] = set()
    parts: Sequence[TrialReport | TrialResult | TrialRelease] = request.trials
    for index, item in enumerate(parts):
        if item.trial_id in met:
            raise InvalidMessage(
                [FieldError(f"trials[{index}].trial_id", item.trial_id, "a trial may stand once in a message")]
            )
        met.add(item.trial_id)


def tokens(requests: Sequence[Request]) -> dict[int, str]:
    """The token that comes with each trial."""
    return {item.trial_id: item.token for request in requests for item in request.trials}


def parts_held(requests: Sequence[Any], holds: Mapping[int, Held | Answer]) -> list[tuple[Any, Held]]:
    """The parts of the messages whose senders hold the trial, with what they hold."""
    return [(item, h) for request in requests for item in request.trials if isinstance(h := holds[item.trial_id], Held)]
