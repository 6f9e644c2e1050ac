"""Tables of rates as a few short curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import pieces
from studies.pieces import TooManyPieces, in_pieces, rates
from tests.studies.curves import OPEN_LOOP, random_parameters, table, trainings


def float32(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32)


def test_a_rate_that_holds_is_its_first_step_and_itself() -> None:
    drops = float32([0.25] * 40 + [0.125] * 25 + [0.0] * 35)
    assert in_pieces(drops) == [(0, 0.25), (40, 0.125), (65, 0.0)]


def test_a_straight_line_has_a_slope() -> None:
    (rise, fall) = in_pieces(float32([*np.arange(16) / 64, *(1.0 - np.arange(64) / 64)]))
    assert rise == pytest.approx((0, 0.0, 1 / 64), abs=1e-9)
    assert fall == pytest.approx((16, 1.0, -1 / 64), abs=1e-9)


def test_a_cubic_is_one_piece() -> None:
    t = np.arange(200) / 200
    (piece,) = in_pieces(float32(0.5 * (1 - t) ** 3 + 0.25))
    assert piece == pytest.approx((0, 0.75, -0.0075, 3.75e-5, -6.25e-8), rel=1e-4)


def test_noise_is_told_step_by_step() -> None:
    noise = float32(np.random.default_rng(0).uniform(size=50))
    assert [(piece[0], np.float32(piece[-1])) for piece in in_pieces(noise)] == list(enumerate(noise))
    assert {len(piece) for piece in in_pieces(noise)} == {2}


def test_a_single_step_is_a_piece() -> None:
    assert in_pieces(float32([0.5])) == [(0, 0.5)]


def test_a_table_that_needs_too_many_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_PIECES", 49)
    with pytest.raises(TooManyPieces, match="50 rates that need more than 49 pieces"):
        in_pieces(float32(np.random.default_rng(0).uniform(size=50)))


def test_a_long_training_of_any_smooth_schedule_is_a_short_list() -> None:
    for name in OPEN_LOOP:
        if name != "noisy_linear_cosine":
            found = in_pieces(float32(table(name, 0.3, 4000, 100, warmup=0.1)))
            assert len(found) <= 150, name


def assert_faithful(values: Any) -> None:
    found = in_pieces(float32(values))
    assert [piece[0] for piece in found] == sorted({piece[0] for piece in found})
    assert found[0][0] == 0
    assert all(2 <= len(piece) <= 5 for piece in found)
    np.testing.assert_allclose(rates(found, len(values)), float32(values), rtol=1.3e-7, atol=1.1e-9 * max(values))


@given(trainings(), st.data())
def test_every_schedule_is_had_back_from_its_pieces(training: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(OPEN_LOOP))
    training["warmup"] = training.pop("warmup_steps") / training["steps"]
    assert_faithful(table(name, **training, **data.draw(random_parameters(name))))


@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=60))
def test_any_rates_are_had_back_from_their_pieces(values: list[float]) -> None:
    assert_faithful(values)
