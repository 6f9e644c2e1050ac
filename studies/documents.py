"""Reading definitions from YAML or JSON text."""

from __future__ import annotations

import re
from typing import Any

import yaml

from studies.errors import FieldError, InvalidDefinition


class _Loader(yaml.SafeLoader):
    """Plain data only: no tags, no aliases (they can blow up), no repeated keys, and 1e-3 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed here", self.get_mark())
        return super().compose_node(parent, index)

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


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_document(text: str) -> Any:
    """The data in a YAML or JSON text. Raises InvalidDefinition with the line where it cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        message = f"cannot be read as YAML or JSON{where}: {error.problem}"
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = f"cannot be read as YAML or JSON: {error}"
    raise InvalidDefinition([FieldError("(definition)", text[:80], message)])
