"""Is each document of its kind well-formed? Names every fault at the place of the field.

Decides how a schema fault reads to a person. Which fields exist is the documents' business; whether
what they refer to exists is the builder's.
"""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sites.fleet_file.documents import API_VERSION, KINDS, Document
from sites.fleet_file.faults import Fault, did_you_mean, nearest
from sites.fleet_file.reader import Node

Loc = tuple[str | int, ...]


def check(node: Node, faults: list[Fault]) -> Document | None:
    """The document a node holds, or None with every fault added to `faults`."""
    if node.value is None:
        return None  # an empty document between two --- lines
    if not isinstance(node.value, dict):
        faults.append(node.place.fault("a document is a mapping with apiVersion, kind, spec"))
        return None
    kind = node.get("kind")
    if kind is None:
        faults.append(node.place.fault(f'field "kind" is missing; one of {", ".join(KINDS)}'))
        return None
    cls = KINDS.get(kind.value) if isinstance(kind.value, str) else None
    if cls is None:
        hint = did_you_mean(str(kind.value)[:80], KINDS) or f"; one of {', '.join(KINDS)}"
        faults.append(kind.place.fault(f'unknown kind "{str(kind.value)[:80]}"{hint}'))
        return None
    try:
        return cls.model_validate(node.value)
    except ValidationError as error:
        relevant = _relevant(error)
        meant = {_meant(cls, one["loc"]) for one in relevant if one["type"] == "extra_forbidden"}
        faults.extend(
            _fault(node, cls, one)
            for one in relevant
            if one["type"] != "missing" or _without_forms(one["loc"]) not in meant
        )
        return None


def _relevant(error: ValidationError) -> list[ErrorDetails]:
    """Each place once: a choice of forms reports a fault per form, the one for lists tells more."""
    by_place: dict[Loc, ErrorDetails] = {}
    for one in error.errors(include_url=False):
        loc = _without_forms(one["loc"])
        if loc not in by_place or one["type"] == "literal_error":
            by_place[loc] = one
    return [
        one
        for loc, one in by_place.items()
        if one["type"] != "literal_error"
        or not any(len(other) > len(loc) and other[: len(loc)] == loc for other in by_place)
    ]


def _without_forms(loc: Loc) -> Loc:
    """A location without the names of the forms a field may take; its last part is kept."""
    kept = tuple(part for part in loc[:-1] if not _is_form(part))
    return kept if not loc or (_is_form(loc[-1]) and len(loc) > 2) else (*kept, loc[-1])


def _is_form(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith(("list[", "literal["))


def _fault(node: Node, cls: type[BaseModel], error: ErrorDetails) -> Fault:
    loc = _without_forms(error["loc"])
    context = error.get("ctx", {})
    if "index" in context:
        loc = (*loc, context["index"])
    if error["type"] == "extra_forbidden":
        return node.key_place(*loc).fault(_unknown_field(cls, loc))
    if error["type"] == "missing":
        where = _path(loc[:-1])
        return node.nearest(*loc[:-1]).fault(f'field "{loc[-1]}" is missing{where}')
    return node.nearest(*loc).fault(f"{_name(loc)}: {reason(error)}")


def reason(error: ErrorDetails) -> str:
    """What is wrong with a value, for people."""
    kind, given, context = error["type"], _shown(error.get("input")), error.get("ctx", {})
    if kind == "quantity":
        return str(context["text"])
    if kind == "literal_error":
        expected = str(context.get("expected", "")).replace("'", '"')
        return f"{given} must be {expected}"
    if kind == "string_pattern_mismatch":
        return _pattern_reason(given, str(context.get("pattern", "")))
    if kind == "too_short" and context.get("actual_length") == 0:
        return "is empty; give at least one"
    if kind in ("too_short", "too_long"):
        few, many = context.get("min_length"), context.get("max_length")
        return f"has {context.get('actual_length')} items, must have {few or many}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{given} must be a mapping of fields"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{given} must be {message}" if error["msg"].startswith("Input should") else message


def _pattern_reason(given: str, pattern: str) -> str:
    if pattern == r"^[A-Z]{2}$":
        return f"{given} is not an ISO 3166-1 alpha-2 country code; write two capitals, e.g. NO"
    if pattern.startswith("^[a-z0-9]("):
        return (
            f"{given} is not a name; use 1-200 of a-z 0-9 . _ / : @ + -, starting and ending with "
            "a letter or digit"
        )
    if ":[0-9]" in pattern:
        return f'{given} is not an address; write host:port, e.g. "10.0.0.5:8443"'
    return f"{given} does not have the form {pattern}"


def _shown(value: Any) -> str:
    if value is None:
        return "an empty value"
    if isinstance(value, str):
        return f'"{value[:60]}"'
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value!r}"[:60]


def _unknown_field(cls: type[BaseModel], loc: Loc) -> str:
    name = str(loc[-1])[:80]
    hint = did_you_mean(name, _fields(cls, loc[:-1]))
    return f'unknown field "{name}"{_path(loc[:-1])}{hint}'


def _meant(cls: type[BaseModel], loc: Loc) -> Loc:
    """Where the field stands that a misspelt one was meant to be: it is not missing as well."""
    place = _without_forms(loc)
    near = nearest(str(place[-1])[:80], _fields(cls, place[:-1]))
    return (*place[:-1], near or "")


def _fields(cls: type[BaseModel], loc: Loc) -> list[str]:
    owner = model_at(cls, loc)
    return [f.alias or name for name, f in owner.model_fields.items()] if owner else []


def model_at(cls: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`, if the format has one there."""
    current: type[BaseModel] | None = cls
    for part in loc:
        if isinstance(part, int) or current is None:
            continue
        field = next((f for n, f in current.model_fields.items() if (f.alias or n) == part), None)
        current = None if field is None else _model_in(field.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)


def _path(loc: Loc) -> str:
    return f" in {_name(loc)}" if loc else ""


def _name(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or f"document (apiVersion: {API_VERSION})"
