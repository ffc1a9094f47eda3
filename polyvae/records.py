"""Records: frozen dataclasses that files hold as JSON, and their tables for people."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar, Self

from polyvae.errors import InputError

DEEPEST = 50  # nested lists and objects; ours are ten deep, and Python's own limit ends in a traceback


def json_object(text: str | bytes, name: Any, advice: str) -> dict[str, Any]:
    """The object that a text holds as JSON.

    Args:
        name: where the text is from, for messages.
        advice: instruction for a text that cannot be read.

    Raises:
        InputError: another kind of text, one that is nested too deep, and words that cannot be written again, such
            as half a surrogate pair.
    """
    try:
        found = json.loads(text.decode() if isinstance(text, bytes) else text)
        if _depth(found) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and objects within each other")
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise InputError(f"{name} must hold a JSON object; it is nested too deep; {advice}") from None
    except ValueError as error:  # among them those of decoding and encoding
        raise InputError(f"{name} must hold a JSON object, but cannot be read ({error}); {advice}") from None
    if not isinstance(found, dict):
        raise InputError(f"{name} must hold a JSON object; it holds a {type(found).__name__}; {advice}")
    return found


def _depth(value: Any) -> int:
    """Depth of the nested lists and objects."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return depth


class Record:
    """A base of frozen dataclasses that files hold as JSON objects.

    `record["name"]` is `record.name`; `to_dict` gives what a file holds.
    """

    # Names of fields that the file leaves out where they are None.
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, as JSON holds them."""
        values = {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}
        for name in self.OPTIONAL:
            if values[name] is None:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record again; raises TypeError for an unknown name, and for a value of another kind."""
        check_kinds(cls, values)
        found = dict(values)
        for field in dataclasses.fields(cls):
            kinds = [*typing.get_args(field.type), field.type]
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, Record) and found.get(field.name) is not None:
                    found[field.name] = kind.from_dict(found[field.name])
        return cls(**found)

    def table(self) -> list[list[str]]:
        """Rows of words for people, the first the head; here a field each."""
        rows = [[name.replace("_", " "), in_words(value)] for name, value in self.to_dict().items()]
        return [[""], *rows]

    def _repr_html_(self) -> str:
        return html_of(type(self).__name__, self.table())


def check_kinds(kind: type, values: Any) -> None:
    """Raise TypeError where values by name, as JSON has them, are not of the kinds of a dataclass' fields."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{kind.__name__} is a {type(values).__name__}, not an object")
    for field in dataclasses.fields(kind):
        if field.name in values and not _fits(values[field.name], field.type):
            value = " ".join(repr(values[field.name]).split())[:60]
            raise TypeError(f"{field.name.replace('_', ' ')} of {kind.__name__} cannot be {value}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of the kind of an annotation."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is None or kind is type(None):
        return kind is Any or value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    holder = origin or kind
    if issubclass(holder, (Mapping, Record)):
        inner = parts or (Any,)
        return isinstance(value, Mapping) and all(_fits(one, inner[-1]) for one in value.values())
    if issubclass(holder, (list, tuple, Sequence)) and holder is not str:
        inner = parts[:1] or (Any,)
        return isinstance(value, (list, tuple)) and all(_fits(one, inner[0]) for one in value)
    return isinstance(value, holder)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def in_words(value: Any) -> str:
    """A number, or several, as tables show them: with three decimals, large ones with four digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(in_words, value))
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:.4g}"


_LONGEST = 120  # characters of a cell in a notebook


def html_of(title: str, table: Sequence[Sequence[object]], note: str = "") -> str:
    """A record in a notebook: a title, a table of words, and a line below.

    The first row is the head. Names of rows are aligned to the left, columns with a head to the right.
    """
    head, *body = table
    side = "right" if len(head) > 1 else "left"
    first = 'style="text-align:left;padding:1px 14px 1px 0;font-weight:normal;opacity:0.75"'
    other = f'style="text-align:{side};padding:1px 0 1px 14px;font-variant-numeric:tabular-nums"'

    def row(cells: Sequence[object], kind: str) -> str:
        words = [text if len(text) <= _LONGEST else text[:_LONGEST] + " …" for text in map(str, cells)]
        rest = "".join(f"<{kind} {other}>{escape(word)}</{kind}>" for word in words[1:])
        return f"<tr><th {first}>{escape(words[0])}</th>{rest}</tr>"

    lines = [row(cells, "td") for cells in body]
    if len(head) > 1:
        lines.insert(0, row(head, "th"))
    below = f'<div style="opacity:0.75">{escape(note)}</div>' if note else ""
    return (
        f'<div style="font-size:90%"><b>{escape(title)}</b>'
        f'<table style="border-collapse:collapse;margin:4px 0">{"".join(lines)}</table>{below}</div>'
    )
