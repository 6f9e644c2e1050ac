"""From a confirm run of a real worker to a model on somebody's disk."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from arena_cli.app import app
from studies.client import Client
from studies.trial import TrialState
from tests.end_to_end.conftest import TINY_TASK, run_to_end
from workers.tasks import load

# Keras 3.15 turns a variable into an array in a way that NumPy 2.4 warns about.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
]


def test_the_best_confirmed_model_comes_home_with_its_test_score(arena: Client, tmp_path: Path) -> None:
    name = run_to_end(
        arena,
        {
            "name": "models",
            "tasks": ["tiny-line"],
            "schedules": ["constant", {"type": "reduce_on_plateau", "patience": 1}],
            "learning_rate": {"low": 0.01, "high": 0.1, "log": True},
            "batch_size": 16,
            "epochs": 4,
            "search": {"trials_per_schedule": 1, "sampler": "random"},
            "confirm": {"seeds": 2},
        },
    )
    listed = arena.models(name)
    assert [model.schedule for model in listed] == ["constant", "reduce_on_plateau"]
    trials = [trial for trial in arena.trials(name) if trial.phase == "confirm"]
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    target = tmp_path / "model.keras"
    for model in listed:
        values = [trial.value for trial in trials if trial.schedule == model.schedule and trial.value is not None]
        assert model.value == min(values)
        done = CliRunner().invoke(
            app, ["model", name, "--schedule", model.schedule, "-o", str(target), "--force", "--server", arena.url]
        )
        assert done.exit_code == 0, done.output
        inputs, targets = load([str(TINY_TASK)])["tiny-line"]().test[:2]
        predicted = keras.saving.load_model(target).predict(inputs, verbose=0)
        assert float(np.mean((predicted - targets) ** 2)) == pytest.approx(model.test_value, rel=1e-4)
        folder = Path(model.model.address.removeprefix("file://")).parent
        assert {path.suffix for path in folder.iterdir()} == {".keras", ".json"}
        assert len(list(folder.iterdir())) == 2
