"""YAML files that people write: plain data, no key twice, and names that a YAML reader takes for something else.

YAML 1.1 reads `ON`, `NO` and `Y` as true or false, 1.2 reads `1E5` as a number, and PyYAML is of neither kind. So a
name without quotes that any of them takes for something else is handed over as UnquotedName, and the reader of the
document refuses it: the file then means the same to every program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ibkr_depth_pipeline.errors import ConfigurationError

NAME_KEYS = frozenset(
    {"symbol", "name", "local_symbol", "trading_class", "exchange", "primary_exchange", "currency", "sec_type"}
)
"""Keys whose values are names; the entries of `symbols:` and the keys of `overrides:` are names as well."""

_TEXT, _UNQUOTED = "tag:yaml.org,2002:str", "!unquoted-name"
_ELSE = re.compile(
    r"""
    y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF  # true and false
    |~|null|Null|NULL|=|<<                                                              # nothing, and YAML's own signs
    |[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])*)              # whole numbers, base 60 as well
    |[-+]?([0-9][0-9_]*(:[0-5]?[0-9])*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?      # others
    |[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)
    |[0-9]{4}-(0?[1-9]|1[0-2])-(0?[1-9]|[12][0-9]|3[01])([Tt ].*)?                      # dates
    """,
    re.VERBOSE,
)
_ABSENT = ("", "~", "null")


class UnquotedName(str):
    """A name as it stands in the file, without the quotes that it needs."""

    __slots__ = ()


def is_read_as_something_else(text: str) -> bool:
    """Whether a YAML reader takes this text, without quotes, for anything but a text."""
    return _ELSE.fullmatch(text) is not None


def read_yaml(path: Path) -> object:
    """Parse the file, plain data only. Raises ConfigurationError, which names the file."""
    where = str(path.absolute())
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(where, [f"can't be read: {error}"]) from None
    try:
        return yaml.load(text, _StrictLoader)
    except RecursionError:
        raise ConfigurationError(where, ["is not YAML that can be read: nested too deeply"]) from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # PyYAML's own for odd tags and dates
        raise ConfigurationError(where, [f"is not YAML that can be read: {' '.join(str(error).split())}"]) from None


class _StrictLoader(yaml.SafeLoader):
    """Plain data only, and no key twice: YAML would silently take the last."""

    def get_single_node(self) -> yaml.Node | None:
        """The document's node, with the names marked that need quotes."""
        root: yaml.Node | None = super().get_single_node()
        if root is not None:
            for node in _names(root):
                if node.style is None and is_read_as_something_else(node.value):
                    node.tag = _UNQUOTED
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of `node`. Raises ConstructorError, with the place, if a key stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key[1]!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _unquoted(loader: _StrictLoader, node: yaml.ScalarNode) -> UnquotedName:
    return UnquotedName(node.value)


_StrictLoader.add_constructor(_UNQUOTED, _unquoted)


def _names(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """The scalars of the document that are names, but for those that say that there is none."""
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        for key, value in node.value:
            todo += [key, value]
            if key.value == "symbols" and isinstance(value, yaml.SequenceNode):
                yield from (each for each in value.value if _is_given(each))
            if key.value == "overrides" and isinstance(value, yaml.MappingNode):
                yield from (each for each, _ in value.value if each.tag == _TEXT)
            if isinstance(key.value, str) and key.value in NAME_KEYS and _is_given(value):
                yield value


def _is_given(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value not in _ABSENT
