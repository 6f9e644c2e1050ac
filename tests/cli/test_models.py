"""`lr-arena model` against a real service, and against what may have become of a file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from arena_cli.models import fetch
from studies.errors import ModelError
from studies.protocol import KeptModel, ModelView
from tests.cli.conftest import Arena, made_up
from tests.service.support import Worker, small_study

CONTENT = {"constant": b"a model", "cosine": b"another model"}


@pytest.fixture(scope="module")
def study(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished study whose first confirm runs have left files, which stand for models."""
    folder = tmp_path_factory.mktemp("models")
    name = arena.client.submit(small_study(name="with-models")).name
    worker = Worker(arena.client, id="node-7")
    while arena.client.study(name).finished_at is None:
        for trial in worker.claim(wait_seconds=1):
            model = None
            if trial.phase == "confirm" and trial.number == 0:
                content = CONTENT[trial.schedule]
                path = folder / f"trial-{trial.trial_id}.keras"
                path.write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                model = KeptModel(address=f"file://{path}", bytes=len(content), sha256=digest)
            worker.finish(trial, made_up(trial), model=model)
    return name


def test_the_kept_models_are_listed_for_people_and_programs(arena: Arena, study: str) -> None:
    table = arena.run("model", study)
    assert table.exit_code == 0
    for model in arena.client.models(study):
        assert model.model.address.rpartition("/")[2] in table.stdout
    data = json.loads(arena.run("model", study, "--format", "json").stdout)
    assert [row["schedule"] for row in data] == ["constant", "cosine"]
    assert data[0]["model"]["bytes"] == len(CONTENT["constant"])
    lines = arena.run("model", study, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("task,schedule,trial_id,")
    assert lines[0].endswith(",address,bytes,sha256")
    assert len(lines) == 3
    assert arena.run("model", study, "--task", "another", "--format", "csv").stdout == ""


def test_a_model_is_fetched_and_nothing_is_written_over_unasked(arena: Arena, study: str, tmp_path: Path) -> None:
    target = tmp_path / "mine.keras"
    wanted = ("model", study, "--schedule", "cosine", "--task", "digits-mlp", "-o", str(target))
    done = arena.run(*wanted)
    assert done.exit_code == 0, done.stderr
    assert target.read_bytes() == CONTENT["cosine"]
    target.write_bytes(b"precious")
    refused = arena.run(*wanted)
    assert (refused.exit_code, target.read_bytes()) == (1, b"precious")
    assert "give --force to write over it" in refused.stderr
    assert arena.run(*wanted, "--force").exit_code == 0
    assert target.read_bytes() == CONTENT["cosine"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--schedule", "cosin", "-o", "no/such/x"), 1, "did you mean 'cosine'?"),
        (("--schedule", "cosine", "--task", "digits-cnn", "-o", "no/such/x"), 1, "did you mean 'digits-mlp'?"),
        (("--schedule", "cosine"), 2, "go together"),
        (("-o", "no/such/x"), 2, "go together"),
        (("--schedule", "cosine", "-o", "no/such/x"), 1, "cannot be written: No such file"),
    ],
)
def test_what_is_not_there_is_named(
    arena: Arena,
    study: str,
    options: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = arena.run("model", study, *options)
    assert (done.exit_code, list(tmp_path.iterdir())) == (code, [])
    assert said in " ".join(done.stderr.replace("│", "").split())


def test_a_study_without_models_says_how_to_keep_them(arena: Arena, finished: str) -> None:
    assert "lr-arena worker --models ADDRESS" in arena.run("model", finished).stdout
    assert "started with --models" in arena.run("model", finished, "--schedule", "cosine", "-o", "no/such/x").stderr


def model_at(address: str, content: bytes) -> ModelView:
    return ModelView(
        task="line",
        schedule="cosine",
        trial_id=7,
        number=0,
        seed=1,
        worker="node-7",
        metric="val_loss",
        value=0.1,
        test_value=0.1,
        model=KeptModel(address=address, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
    )


@pytest.mark.parametrize("now", [b"changed", b"modeL", b"model and more", b"mode", b""])
def test_a_file_that_is_another_now_is_not_taken_for_the_model(tmp_path: Path, now: bytes) -> None:
    source, target = tmp_path / "trial-7.keras", tmp_path / "mine.keras"
    source.write_bytes(now)
    with pytest.raises(ModelError, match="is not what trial 7 left there"):
        fetch(model_at(f"file://{source}", b"model"), target, overwrite=False)
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_of_another_machine_is_said_to_lie_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it lies on the machine of the worker 'node-7', and cannot be read on this"):
        fetch(model_at(f"file://{tmp_path}/nowhere.keras", b""), tmp_path / "mine.keras", overwrite=False)
    with pytest.raises(ModelError, match="oci://bucket/x cannot be fetched: ImportError: Install ocifs"):
        fetch(model_at("oci://bucket/x", b""), tmp_path / "mine.keras", overwrite=False)
    assert list(tmp_path.iterdir()) == []
