"""A monotone cubic through some points, in plain Python: Fritsch and Butland 1984, at the ends Moler's pchip."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise


def monotone_cubic(x: list[float], y: list[float]) -> Callable[[float], float]:
    """The curve through the points, x rising, from the first to the last of them."""
    slopes = _slopes(x, y)

    def at(place: float) -> float:
        i = max(i for i in range(len(x) - 1) if place >= x[i])
        width = x[i + 1] - x[i]
        t = (place - x[i]) / width
        from_values = y[i] * (1 + 2 * t) * (1 - t) ** 2 + y[i + 1] * t * t * (3 - 2 * t)
        from_slopes = width * t * (1 - t) * (slopes[i] * (1 - t) - slopes[i + 1] * t)
        return from_values + from_slopes

    return at


def _slopes(x: list[float], y: list[float]) -> list[float]:
    widths = [right - left for left, right in pairwise(x)]
    rises = [(above - below) / width for (below, above), width in zip(pairwise(y), widths, strict=True)]
    within = [_within(*of_both) for of_both in zip(widths[:-1], widths[1:], rises[:-1], rises[1:], strict=True)]
    first = _at_end(widths[0], widths[1], rises[0], rises[1])
    last = _at_end(widths[-1], widths[-2], rises[-1], rises[-2])
    return [first, *within, last]


def _within(left: float, right: float, left_rise: float, right_rise: float) -> float:
    """A weighted harmonic mean of the rises on both sides; none at a summit, or beside a plain."""
    if left_rise * right_rise <= 0:
        return 0.0
    left_weight, right_weight = 2 * right + left, right + 2 * left
    return (left_weight + right_weight) / (left_weight / left_rise + right_weight / right_rise)


def _at_end(near: float, far: float, near_rise: float, far_rise: float) -> float:
    """The slope of the parabola through the last three points, unless it leaves the shape."""
    slope = ((2 * near + far) * near_rise - near * far_rise) / (near + far)
    if slope * near_rise <= 0:
        return 0.0
    if near_rise * far_rise <= 0 and abs(slope) > abs(3 * near_rise):
        return 3 * near_rise
    return slope
