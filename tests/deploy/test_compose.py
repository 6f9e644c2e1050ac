"""docker-compose.yml: valid by the Compose Specification, safe as it is, and in terms that `lr-arena` knows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer
import yaml

from arena_cli.app import app
from service.serve import STOP_SECONDS
from tests.deploy.dockerfile import instructions
from workers.agent import FLUSH_SECONDS, QUIT_SECONDS, SUSPEND_SECONDS

TREE = Path(__file__).parents[2]
TEXT = (TREE / "docker-compose.yml").read_text()
SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
OURS = ("service", "worker-gpu", "worker-cpu")

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


class Missing(Exception):
    """A variable that must be set is not."""


def compose(**environment: str) -> dict[str, Any]:
    """The file with its variables filled in, as Compose does it."""

    def value(found: re.Match[str]) -> str:
        given = environment.get(found["name"], "")
        if not given and found["kind"] == "?":
            raise Missing(found["name"])
        return given or (found["rest"] or "" if found["kind"] == "-" else "")

    def filled(node: Any) -> Any:
        if isinstance(node, str):
            return _VARIABLE.sub(value, node)
        if isinstance(node, Mapping):
            return {key: filled(item) for key, item in node.items()}
        return [filled(item) for item in node] if isinstance(node, list) else node

    result: dict[str, Any] = filled(yaml.safe_load(TEXT))
    return result


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(POSTGRES_PASSWORD="p@ss/word")["services"]
    return found


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def variables_of_example() -> dict[str, str]:
    lines = (TREE / ".env.example").read_text().splitlines()
    return {
        name: given
        for line in lines
        if (found := re.match(r"(?:# )?([A-Z_]+)=(.*)", line))
        for name, given in [found.groups()]
    }


def test_the_file_is_valid_by_the_published_schema_as_it_is_and_filled_in() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for document in (yaml.safe_load(TEXT), compose(**{**variables_of_example(), "POSTGRES_PASSWORD": "secret"})):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []


def test_the_schema_refuses_what_is_not_of_the_specification() -> None:
    document = yaml.safe_load(TEXT)
    document["services"]["service"]["healthchek"] = {}
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_nothing_but_a_password_must_be_set_and_without_it_nothing_starts() -> None:
    with pytest.raises(Missing, match="POSTGRES_PASSWORD"):
        compose()
    compose(POSTGRES_PASSWORD="secret")


def test_the_example_of_the_environment_names_every_variable_and_no_secret() -> None:
    used = {found["name"]: found["rest"] for found in _VARIABLE.finditer(TEXT)}
    example = variables_of_example()
    assert used.keys() - {"LR_ARENA_SERVER"} == example.keys()
    assert (example["POSTGRES_PASSWORD"], example["LR_ARENA_TOKEN"]) == ("", "")
    shown = {name: default for name, default in used.items() if default and name in example and "set it" not in default}
    assert {name: example[name] for name in shown} == shown


def test_the_password_is_in_no_address_and_a_token_in_no_image(services: dict[str, Any]) -> None:
    with_password = [name for name, service in services.items() if "p@ss/word" in json.dumps(service)]
    assert with_password == ["postgres", "service"]
    environment = services["service"]["environment"]
    assert environment["LR_ARENA_DATABASE"] == "postgresql+psycopg://arena@postgres:5432/arena"
    assert environment["PGPASSWORD"] == "p@ss/word"
    assert all(build["args"].keys() == {"BACKEND"} for build in (services[name]["build"] for name in OURS[1:]))


def test_workers_are_started_on_request_and_nothing_is_reached_from_elsewhere(services: dict[str, Any]) -> None:
    assert {name: service.get("profiles") for name, service in services.items()} == {
        "postgres": None,
        "service": None,
        "worker-gpu": ["gpu"],
        "worker-cpu": ["cpu"],
    }
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "service": ["127.0.0.1:8000:8000"]
    }


def test_the_service_waits_for_a_healthy_database_and_both_are_looked_at(services: dict[str, Any]) -> None:
    assert services["postgres"]["image"] == "postgres:17"
    assert "database:/var/lib/postgresql/data" in services["postgres"]["volumes"]
    assert services["service"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["postgres"]["healthcheck"]["test"][1] == "pg_isready"
    assert "/readyz" in services["service"]["healthcheck"]["test"][-1]


def test_the_gpu_worker_reserves_all_nvidia_gpus(services: dict[str, Any]) -> None:
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "deploy" not in services["worker-cpu"]


def test_everything_comes_back_after_a_restart_and_can_get_no_more_rights(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["security_opt"] == ["no-new-privileges:true"]
    for name in OURS:
        ours = services[name]
        assert ours["init"] is True
        assert ours["read_only"] is True
        assert ours["cap_drop"] == ["ALL"]
        assert ours["user"] == "10001:10001"


def test_there_is_time_to_end_in_order(services: dict[str, Any]) -> None:
    assert seconds(services["service"]["stop_grace_period"]) > STOP_SECONDS
    for name in OURS[1:]:
        assert seconds(services[name]["stop_grace_period"]) > max(30, SUSPEND_SECONDS + QUIT_SECONDS + FLUSH_SECONDS)


def test_what_is_to_last_is_in_a_volume_where_the_image_has_its_folder(services: dict[str, Any]) -> None:
    volumes = compose(POSTGRES_PASSWORD="secret")["volumes"].keys()
    for name in OURS[1:]:
        steps = instructions((TREE / services[name]["build"]["dockerfile"]).read_text())
        folder = [step.rest for step in steps if step.word == "WORKDIR"][-1]
        made = next(step.rest for step in steps if step.rest.startswith("mkdir ")).partition(" &&")[0].split()[1:]
        mounts = [mount.split(":") for mount in services[name]["volumes"]]
        assert {mount[1] for mount in mounts} == {f"{folder}/{child}" for child in made}
        assert {mount[0] for mount in mounts} <= volumes | {"./tasks"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_line_understands_what_is_started(
    name: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "--tasks /var/lib/lr-arena/tasks/iris_task.py --label site=lab"
    ours = compose(POSTGRES_PASSWORD="secret", LR_ARENA_WORKER_OPTIONS=options)["services"][name]
    dockerfile = instructions((TREE / ours["build"]["dockerfile"]).read_text())
    by_word = {step.word: step.rest for step in dockerfile}
    assert json.loads(by_word["ENTRYPOINT"]) == ["lr-arena"]
    for variable, value in ours["environment"].items():
        monkeypatch.setenv(variable, value)
    commands = typer.main.get_command(app)
    composed = shlex.split(ours["command"]) if isinstance(ours["command"], str) else ours["command"]
    for command in (json.loads(by_word["CMD"]), composed):
        context = commands.make_context("lr-arena", [command[0]], resilient_parsing=True)
        chosen = commands.get_command(context, command[0])  # type: ignore[attr-defined]
        parsed = chosen.make_context(command[0], command[1:], parent=context)
        assert parsed.args == []
        if "LR_ARENA_SERVER" in ours["environment"]:
            assert parsed.params["server"] == "http://service:8000"
        assert parsed.params["log_format"] == "json"
