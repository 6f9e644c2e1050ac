"""What the web process' log says of studies and trials: who asked for what, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from studies.protocol import Answer, Assignment, ClaimRequest, TrialRelease, TrialResult

log = logging.getLogger(__name__)


def asked(study: str, what: str) -> None:
    """A study was created, paused or the like."""
    log.info("%s", what, extra={"study": study})


def handed_out(claim: ClaimRequest, trials: Sequence[Assignment]) -> None:
    """A claim was answered with these trials."""
    for trial in trials:
        log.info(
            "handed out to %s",
            claim.worker.name,
            extra={
                "study": trial.study,
                "trial": trial.trial_id,
                "attempt": trial.attempt,
                "worker": claim.worker.id,
                "request": claim.request_id,
            },
        )


def given_back(worker_id: str, ends: Sequence[TrialResult | TrialRelease], answers: Sequence[Answer]) -> None:
    """Results or releases were answered so."""
    for end, answer in zip(ends, answers, strict=True):
        how = end.outcome if isinstance(end, TrialResult) else end.cause
        words = f"{how}: {end.reason}" if end.reason else how
        ids = {"trial": end.trial_id, "worker": worker_id}
        if answer.status == 200:
            log.info("%s", words, extra=ids)
        else:
            log.warning("refused, %s (%s)", answer.detail, words, extra=ids)
