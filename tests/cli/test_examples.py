"""The study definitions that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena_cli.demo import demo_study
from studies.definition import StudyDefinition, read_definition
from studies.documents import parse_document
from studies.tasks import BUILT_IN_TASKS

EXAMPLES = Path(__file__).parents[2] / "studies" / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


def read(path: Path) -> StudyDefinition:
    return read_definition(parse_document(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_a_valid_definition_of_tasks_that_are_there(path: Path) -> None:
    assert set(read(path).tasks) <= {*BUILT_IN_TASKS, "iris-mlp"}


def test_examples_have_different_names() -> None:
    names = [read(path).name for path in FILES]
    assert len(set(names)) == len(names) >= 5


def test_the_demo_compares_enough_to_mean_something() -> None:
    demo = demo_study()
    assert demo == read(EXAMPLES / "demo.yaml")
    assert demo.tasks == ["digits-mlp"]
    assert len(demo.schedules) >= 8
    assert demo.confirm.seeds >= 3
    assert demo.search.allocation == "equal"


def test_the_task_of_the_iris_example_is_in_the_file_beside_it() -> None:
    assert "iris-mlp" in (EXAMPLES / "iris_task.py").read_text()
