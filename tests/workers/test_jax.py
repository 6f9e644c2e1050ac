"""The rates applied on the JAX backend, where jax is installed: in a process of its own, as each has one backend."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None,
        reason="jax is not installed here; with `pip install jax` this checks every schedule on it",
    ),
]

SCRIPT = """
import keras

from studies.schedules import CATALOGUE
from tests.studies.curves import TRAINED
from tests.workers.one_weight import check_open_loop, check_plateau_schedules

assert keras.backend.backend() == "jax"
assert {name for name, _ in TRAINED} == {name for name, model in CATALOGUE.items() if model.loop == "open"}
for name, parameters in TRAINED:
    check_open_loop(name, parameters)
check_plateau_schedules()
print(len(TRAINED), "as they should be")
"""


@pytest.mark.timeout(600)
def test_rates_as_applied_on_jax_equal_the_formula_of_every_open_loop_schedule() -> None:
    """Open loop with 1 and 8 steps per execution, and the rates that closed-loop schedules assign."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("as they should be\n")
