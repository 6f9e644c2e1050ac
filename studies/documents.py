"""Reading definitions from YAML or JSON text."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from studies.errors import FieldError, InvalidDefinition

MAX_CHARACTERS = 1_000_000
"""A longer text is no definition, and reading YAML takes seconds per million characters."""

MAX_DEPTH = 50
"""No definition is nested deeper, and at some hundred levels reading YAML takes a second."""


class _Loader(yaml.SafeLoader):
    """Plain data only: no tags, no aliases (they can blow up), no repeated keys, no dates, and 1e-3 is a number."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed here", mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"tags are not allowed here: {event.tag}", mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"keys must be words, but got {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is repeated", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated")
    return found


def parse_document(text: str) -> Any:
    """The data in a YAML or JSON text. Raises InvalidDefinition with the line where it cannot be read."""
    if len(text) > MAX_CHARACTERS:
        message = f"must be at most {MAX_CHARACTERS:,} characters long, but got {len(text):,}"
        raise InvalidDefinition([FieldError("(definition)", text[:80], message)])
    try:
        return json.loads(text, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError):
        pass  # not JSON, or not quite: as YAML it is read or refused with the line
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        message = f"cannot be read as YAML or JSON{where}: {error.problem}"
    except RecursionError:
        message = "cannot be read as YAML or JSON: it is nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        message = f"cannot be read as YAML or JSON: {error}"
    raise InvalidDefinition([FieldError("(definition)", text[:80], message)])
