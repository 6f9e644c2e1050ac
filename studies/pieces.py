"""A table of learning rates as a few short curves, so that it can be written down and read.

A piece is (first step, c0, c1, c2, c3): from its first step to that of the next piece, t steps later, the rate is
c0 + c1 t + c2 t^2 + c3 t^3. Coefficients at the end that are zero are left out: a rate that holds is
(first step, rate), a straight line (first step, rate, slope).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Piece = tuple[int, *tuple[float, ...]]
Pieces = list[Piece]

MAX_PIECES = 100_000
"""A table that needs more is not written down."""

_RELATIVE = 1.2e-7
"""How far a rate may be from the table's, relative to it: one rounding of float32."""
_ABSOLUTE = 1e-9
"""The same relative to the table's largest rate, for rates that fall to nothing."""
_DIGITS = 10
"""Of a coefficient; a float32 has nine."""
_SHORTEST = {1: 3, 3: 8}
"""Per degree, the steps that a piece must cover to be worth its coefficients."""
_FITTED = 500
"""A polynomial is fitted to so many of a long piece's steps, and then held against all of them."""


class TooManyPieces(ValueError):
    """The table has no short form."""


def in_pieces(table: NDArray[np.float32]) -> Pieces:
    """The pieces of a table, float32 (steps,), each as long as it can be.

    `rates` of them differs from the table by one rounding of float32 at the most, 1e-9 of the largest rate where that
    is more. Raises TooManyPieces.
    """
    rates = table.astype(np.float64)
    allowed = _RELATIVE * rates + _ABSOLUTE * rates.max(initial=0.0)
    holds = np.append(np.flatnonzero(np.diff(rates)) + 1, rates.size)
    promising = {degree: _promising(rates, allowed, degree) for degree in _SHORTEST}
    found: Pieces = []
    start = 0
    while start < rates.size:
        if len(found) == MAX_PIECES:
            raise TooManyPieces(f"{rates.size:,} rates that need more than {MAX_PIECES:,} pieces")
        end = int(holds[np.searchsorted(holds, start, side="right")])
        coefficients = [_rounded(rates[start])]
        for degree, shortest in _SHORTEST.items():
            if max(end, start + shortest - 1) < rates.size and promising[degree][start]:
                longer = _longest(rates, allowed, start, max(end, start + shortest - 1), degree)
                if longer is not None:
                    end, coefficients = longer
        found.append((start, *coefficients))
        start = end
    return found


def rates(pieces: Sequence[Sequence[float]], steps: int) -> NDArray[np.float32]:
    """The rate at each step: float32 (steps,)."""
    first = np.array([piece[0] for piece in pieces])
    padded = np.array([(*piece[1:], 0.0, 0.0, 0.0)[:4] for piece in pieces])
    step = np.arange(steps)
    piece = np.searchsorted(first, step, side="right") - 1
    c, t = padded[piece].T, step - first[piece]
    values: NDArray[np.float64] = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
    return values.astype(np.float32)


def _promising(rates: NDArray[np.float64], allowed: NDArray[np.float64], degree: int) -> NDArray[np.bool_]:
    """Whether a polynomial may pass through the shortest piece from each step on: its differences nearly vanish.

    bool (steps,). Where they do not, none passes: the difference of order d + 1 of values that are each off by e at the
    most is at most 2^(d + 1) e.
    """
    order, length = degree + 1, _SHORTEST[degree]
    if rates.size < length:
        return np.zeros(rates.size, dtype=np.bool_)
    windows = np.lib.stride_tricks.sliding_window_view
    flat = np.abs(np.diff(rates, order)) <= 2.0**order * windows(allowed, order + 1).max(axis=1)
    return np.append(windows(flat, length - order).all(axis=1), np.zeros(length - 1, dtype=np.bool_))


def _longest(
    rates: NDArray[np.float64], allowed: NDArray[np.float64], start: int, beyond: int, degree: int
) -> tuple[int, list[float]] | None:
    """The end of the longest piece of this degree that goes further than `beyond`, and its coefficients; None if none.

    Lengths are doubled until one does not fit, then halved between.
    """
    fits, end = None, beyond + 1
    while (coefficients := _fit(rates[start:end], allowed[start:end], degree)) is not None:
        fits = end, coefficients
        if end == rates.size:
            return fits
        end = min(start + 2 * (end - start), rates.size)
    if fits is None:
        return None
    while end - fits[0] > 1:
        middle = (fits[0] + end) // 2
        coefficients = _fit(rates[start:middle], allowed[start:middle], degree)
        if coefficients is None:
            end = middle
        else:
            fits = middle, coefficients
    return fits


def _fit(rates: NDArray[np.float64], allowed: NDArray[np.float64], degree: int) -> list[float] | None:
    """The coefficients of a polynomial through these rates; None if it is off by more than is allowed anywhere."""
    t = np.arange(rates.size)
    some = t if t.size <= _FITTED else np.linspace(0, t.size - 1, _FITTED).astype(np.int64)
    weights = 1.0 / np.maximum(allowed[some], 1e-300)
    scaled = np.polynomial.polynomial.polyfit(t[some] / t.size, rates[some], degree, w=weights)
    coefficients = [_rounded(c / float(t.size) ** power) for power, c in enumerate(scaled)]
    while len(coefficients) > 1 and coefficients[-1] == 0.0:
        coefficients.pop()
    values = np.polynomial.polynomial.polyval(t, coefficients).astype(np.float32)
    return coefficients if bool(np.all(np.abs(values - rates) <= allowed)) else None


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS - 1}e}")
