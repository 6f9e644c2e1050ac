"""Where every random number starts: seeds derived from the study's seed by hashing.

Derived, not drawn: a restart gives the same seeds, and no two uses share a stream.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from studies.trial import Phase


def derive(*parts: int | str) -> int:
    """A seed in [0, 2^31) from any number of parts: the first 31 bits of a SHA-256 over them."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def training_seed(study_seed: int, task: str, phase: Phase, number: int) -> int:
    """The seed of a trial's initial weights, shuffling and dropout.

    It does not depend on the schedule: trial `number` of a phase has the same seed in every arm of a
    task, and the confirm phase's seeds are fresh.
    """
    return derive(study_seed, "training", task, phase, number)


def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order of the training examples in an epoch: int64 (size,), a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(size)
