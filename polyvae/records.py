"""Records: frozen dataclasses that files hold, and that read like the dictionaries in those files."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self


class Record(dict):
    """A base for frozen dataclasses with `eq=False`: attributes in scripts, a dictionary in files.

    `record["name"]` and `record.name` are the same value, except that what `record["name"]` gives is plain:
    dictionaries, lists, numbers and words, as JSON gives them back. What is written into the dictionary changes
    no attribute. A `__post_init__` of a record ends with that of this class.
    """

    # Names of fields that the dictionary leaves out where they are None.
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __post_init__(self) -> None:
        self.update(self.to_dict())  # a real dictionary, so that json.dump takes a record as it is

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, as JSON holds them."""
        values = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None or name not in self.OPTIONAL}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record again; raises TypeError for a name that it does not have."""
        kinds = {field.name: _record_in(field.type) for field in dataclasses.fields(cls)}
        return cls(
            **{
                name: value if value is None or (kind := kinds.get(name)) is None else kind.from_dict(value)
                for name, value in values.items()
            }
        )

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none
        return hash(json.dumps(self.to_dict(), sort_keys=True))


def _record_in(annotation) -> type[Record] | None:
    """The kind of record that a field may hold, by its annotation."""
    kinds = typing.get_args(annotation) or (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Record)), None)


def _plain(value):
    if isinstance(value, Record):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value
