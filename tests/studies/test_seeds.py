"""Seeds are derived, never drawn: the same everywhere, and no two uses share one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from studies.seeds import derive, permutation, training_seed

PARTS: list[tuple[int | str, ...]] = [
    (),
    (0,),
    (1,),
    (-1,),
    (10,),
    ("0",),
    ("1",),
    ("",),
    (0, 0),
    (0, 1),
    (1, 0),
    ("1", 0),
    (1, "0"),
    (1, 0, ""),
    ("10",),
    ("a", "b"),
    ("b", "a"),
    ("ab",),
    ("a", "", "b"),
    (True,),
    (2**63,),
    ("é",),
]


def test_derived_seed_differs_with_every_part_its_place_and_its_type() -> None:
    assert len({derive(*parts) for parts in PARTS}) == len(PARTS)


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_derived_seed_fits_every_generator(parts: tuple[int | str, ...]) -> None:
    assert 0 <= derive(*parts) < 2**31
    assert derive(*parts) == derive(*parts)


def test_derived_seed_is_the_start_of_a_sha256() -> None:
    digest = hashlib.sha256(b"int:7\x1fstr:training").hexdigest()
    assert derive(7, "training") == int(digest[:8], 16) // 2


def test_derived_seeds_spread_over_the_whole_range() -> None:
    seeds = np.array([derive(0, n) for n in range(4000)])
    assert np.histogram(seeds, bins=8, range=(0, 2**31))[0].min() > 400


def test_search_and_confirm_seeds_of_a_study_are_disjoint() -> None:
    search = {training_seed(0, "digits-mlp", "search", number) for number in range(2000)}
    confirm = {training_seed(0, "digits-mlp", "confirm", number) for number in range(1000)}
    assert len(search) == 2000
    assert len(confirm) == 1000
    assert not search & confirm


def test_training_seed_differs_with_study_seed_task_and_number_and_knows_no_schedule() -> None:
    seeds = {
        training_seed(0, "digits-mlp", "confirm", 0),
        training_seed(1, "digits-mlp", "confirm", 0),
        training_seed(0, "wine-mlp", "confirm", 0),
        training_seed(0, "digits-mlp", "search", 0),
        training_seed(0, "digits-mlp", "confirm", 1),
    }
    assert len(seeds) == 5
    # So trial `number` of a phase has the same seed in every arm of a task.
    assert "schedule" not in training_seed.__annotations__


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_permutation_has_every_example_once(size: int) -> None:
    order = permutation(3, 0, size)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(size))


def test_permutation_depends_on_seed_and_epoch_alone() -> None:
    np.random.seed(0)
    first = permutation(3, 5, 100)
    np.random.seed(1)
    permutation(9, 9, 7)
    assert permutation(3, 5, 100).tolist() == first.tolist()
    orders = {tuple(permutation(seed, epoch, 100).tolist()) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64


def test_seeds_and_permutations_are_the_same_in_every_process() -> None:
    program = (
        "from studies.seeds import derive, permutation, training_seed; "
        "print(derive(1, 'a'), training_seed(0, 'digits-mlp', 'search', 3), permutation(3, 5, 20).tolist())"
    )
    here = f"{derive(1, 'a')} {training_seed(0, 'digits-mlp', 'search', 3)} {permutation(3, 5, 20).tolist()}\n"
    for hash_seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == here
