"""The learning-rate range test: from a curve of losses over rising rates to a range for the base rate.

A model is trained for about a hundred batches while the rate rises geometrically from far too low to far
too high: the loss stays, then falls, then explodes. Smith 2017, arXiv:1506.01186. The sweep, the smoothing,
the stop and three of the suggestions are those of fastai (Howard and Gugger 2020, arXiv:2002.04688;
`lr_find` in fastai/callback/schedule.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from studies.errors import RangeTestFailed

BATCHES = 100
LOWEST = 1e-7
HIGHEST = 10.0

SMOOTHING = 0.98
"""The weight of all that was before in the smoothed loss."""
STOP = 4.0
"""The loss has exploded once it is, smoothed, above so many times its best."""
SETTLING = 20
"""Batches at the beginning, at rates that change nothing: their mean loss is where the fall begins."""
FASTAI_TAKES = slice(10, -5)
"""The batches that fastai's suggestions are made from."""
FALL = 0.6
"""How much of the fall the suggestion has behind it. Between a half and two thirds it makes little difference."""
NOISE = 3.0
"""A fall of no more standard errors of the first losses' mean is none."""
ROUNDING = 1e-5
"""Nor is one of no more than this part of the loss, which float32 rounds."""

BELOW = 10.0
"""The range begins at the suggestion divided by this."""
ABOVE = 3.0
"""The range ends at the suggestion multiplied by this, or where the loss explodes."""

MAX_BATCHES = 1000
"""A curve has no more."""

Floats = NDArray[np.float64]


class RangeCurve(BaseModel):
    """What a range test saw, one entry per batch: the rate, the batch's own loss, the smoothed loss.

    A loss that is not finite is None, and ends the curve.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rates: list[float] = Field(min_length=1, max_length=MAX_BATCHES)
    losses: list[float | None] = Field(max_length=MAX_BATCHES)
    smoothed: list[float | None] = Field(max_length=MAX_BATCHES)

    @model_validator(mode="after")
    def _one_curve(self) -> RangeCurve:
        sizes = [len(self.rates), len(self.losses), len(self.smoothed)]
        if len(set(sizes)) != 1:
            raise ValueError(f"rates, losses and smoothed must have as many entries, but got {sizes}")
        if self.rates[0] <= 0 or any(low >= high for low, high in pairwise(self.rates)):
            raise ValueError("rates must be above 0 and rise")
        if None in self.losses[:-1] or None in self.smoothed[:-1]:
            raise ValueError("only the last entry may be without a loss: it ends the curve")
        if (self.losses[-1] is None) != (self.smoothed[-1] is None):
            raise ValueError("the last entry must have a loss and a smoothed loss, or neither")
        return self

    @classmethod
    def of(cls, rates: Sequence[float], losses: Sequence[float]) -> RangeCurve:
        """The curve of the losses at these rates, smoothed; it ends with the batch whose loss has exploded.

        losses: of the first batches of the sweep, at least of one; what is not finite has exploded.
        """
        own = [float(loss) if math.isfinite(loss) else None for loss in losses]
        smoothed = smooth(own)
        exploded = explosion(smoothed)
        end = len(own) if exploded is None else exploded + 1
        return cls(rates=[float(rate) for rate in rates[:end]], losses=own[:end], smoothed=smoothed[:end])


class RangeTest(BaseModel):
    """What a curve says: a suggested base rate, and the range that a search should cover.

    suggestions: what each known rule suggests, None where it has nothing to say; diverged_at: the rate at
    which the loss had exploded, None if it did not; rule: how suggestion, low and high came about.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    suggestion: float
    low: float
    high: float
    suggestions: dict[str, float | None]
    diverged_at: float | None
    rule: str


def sweep_rates(batches: int = BATCHES, lowest: float = LOWEST, highest: float = HIGHEST) -> Floats:
    """The rate of each batch i: float64 (batches,), lowest * (highest / lowest)^(i / (batches - 1)).

    The first is `lowest`, the last `highest`.
    """
    if batches < 2 or not 0.0 < lowest < highest < math.inf:
        raise ValueError(
            "batches >= 2 and 0 < lowest < highest must hold, "
            f"but got batches={batches}, lowest={lowest}, highest={highest}"
        )
    return np.geomspace(lowest, highest, batches)


def smooth(losses: Sequence[float | None]) -> list[float | None]:
    """The exponential moving average of the losses L_i, corrected for its beginning at zero.

    a_i = b a_(i-1) + (1 - b) L_i with a_(-1) = 0 and b = 0.98; smoothed_i = a_i / (1 - b^(i+1)). The first is
    L_0, early ones are nearly plain means. None from the first loss on that is None.
    """
    smoothed: list[float | None] = []
    mean = 0.0
    for count, loss in enumerate(losses, start=1):
        if loss is None:
            break
        # The same in one step, which leaves what does not change exactly as it is.
        mean += (loss - mean) * (1.0 - SMOOTHING) / (1.0 - SMOOTHING**count)
        smoothed.append(mean)
    return smoothed + [None] * (len(losses) - len(smoothed))


def explosion(smoothed: Sequence[float | None]) -> int | None:
    """The first batch whose smoothed loss is None, or above 4 times the best so far; None if there is none.

    Above best + 3 |best|, to be exact, which is the same unless a loss is negative. The first batches are
    not compared.
    """
    best = math.inf
    for batch, loss in enumerate(smoothed):
        if loss is None or loss > best + (STOP - 1.0) * abs(best):
            return batch
        if batch >= SETTLING:
            best = min(best, loss)
    return None


def analyse(curve: RangeCurve) -> RangeTest:
    """Suggest a base rate, and the range suggestion / 10 to suggestion * 3, cut where the loss explodes.

    The suggestion is where the smoothed loss has three fifths of its fall behind it (`three_fifths`).
    Raises RangeTestFailed if the loss exploded at once or did not fall.
    """
    exploded = explosion(curve.smoothed)
    rates = np.array(curve.rates[:exploded])
    smoothed = np.array(curve.smoothed[:exploded], dtype=np.float64)
    diverged_at = None if exploded is None else curve.rates[exploded]
    if len(rates) < SETTLING + 2:
        ended = "the curve ends" if diverged_at is None else "the loss explodes"
        raise RangeTestFailed(f"{ended} after {len(rates)} batches, at a rate of {curve.rates[-1]:.3g}")
    start = smoothed[SETTLING]
    lowest = SETTLING + int(np.argmin(smoothed[SETTLING:]))
    first = np.array(curve.losses[: SETTLING + 1], dtype=np.float64)
    error = float(np.std(first, ddof=1)) / math.sqrt(len(first))
    if start - smoothed[lowest] <= max(NOISE * error, ROUNDING * abs(start)):
        raise RangeTestFailed(
            f"the loss does not fall, or by less than its noise, up to a rate of {rates[-1]:.3g}: smoothed, it goes "
            f"from {start:.4g} to {smoothed[lowest]:.4g} at the lowest, with a standard error of {error:.2g}"
        )
    suggestion = three_fifths(rates[SETTLING:], smoothed[SETTLING:])
    fastai = {"valley": valley, "steepest": steepest, "minimum_over_10": minimum_over_10}
    others = {name: suggest(rates[FASTAI_TAKES], smoothed[FASTAI_TAKES]) for name, suggest in fastai.items()}
    high = ABOVE * suggestion
    explodes = cut = ""
    if diverged_at is not None:
        explodes = f", and explodes at {diverged_at:.3g}"
        if high > rates[-1]:
            high = float(rates[-1])
            cut = ", cut before the loss explodes"
    return RangeTest(
        suggestion=suggestion,
        low=suggestion / BELOW,
        high=high,
        suggestions={"three_fifths": suggestion, **others},
        diverged_at=diverged_at,
        rule=(
            f"smoothed, the loss falls from {start:.4g} to {smoothed[lowest]:.4g} at a rate of {rates[lowest]:.3g}"
            f"{explodes}; at {suggestion:.3g} it has three fifths of that behind it, which is the suggestion; "
            f"the range is suggestion / 10 to suggestion * 3{cut}: {suggestion / BELOW:.3g} to {high:.3g}"
        ),
    )


def three_fifths(rates: Floats, smoothed: Floats) -> float:
    """The first rate at which the smoothed loss is down by three fifths of the way from its first to its lowest.

    It stands where the fall is steep, as `steepest` does, but depends on the whole fall, not on the noise
    of one difference. Of the suggestions here it is the one whose range held the best base rate of a search most
    often: benchmarks/range_test.py.
    """
    fall = smoothed[0] - smoothed.min()
    return float(rates[np.argmax(smoothed <= smoothed[0] - FALL * fall)])


def valley(rates: Floats, smoothed: Floats) -> float | None:
    """The rate half along the longest falling stretch: fastai's default.

    The stretch is the longest strictly falling subsequence of the smoothed losses, of l losses up to
    batch e; the suggestion is that of batch e - l + l // 3 + l // 6. None if nothing falls.
    """
    lengths = np.ones(len(smoothed), dtype=np.int64)
    for end in range(1, len(smoothed)):
        lengths[end] += lengths[:end][smoothed[:end] > smoothed[end]].max(initial=0)
    if lengths.max(initial=0) < 2:
        return None
    end = int(np.argmax(lengths))
    length = int(lengths[end])
    return float(rates[max(end - length + length // 3 + length // 6, 0)])


def steepest(rates: Floats, smoothed: Floats) -> float | None:
    """The rate from which the smoothed loss falls the most per unit of ln(rate), to the next batch's.

    None if it falls nowhere.
    """
    if len(rates) < 2:
        return None
    slopes = np.diff(smoothed) / np.diff(np.log(rates))
    at = int(np.argmin(slopes))
    return float(rates[at]) if slopes[at] < 0 else None


def minimum_over_10(rates: Floats, smoothed: Floats) -> float | None:
    """A tenth of the rate at which the smoothed loss is lowest."""
    return float(rates[np.argmin(smoothed)]) / 10.0 if len(rates) else None
