"""The format described: a JSON Schema for editors and the text behind `hinterland explain`.

Decides how the documents' own descriptions are shown; the descriptions live with the fields.
"""

from __future__ import annotations

import textwrap
import typing
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from sites.errors import RefusedError
from sites.fleet_file import documents as d
from sites.fleet_file.check import model_at
from sites.fleet_file.faults import did_you_mean
from sites.fleet_file.fields import Measure, PartOfWhole

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_Any = Annotated[
    d.Site
    | d.Link
    | d.Market
    | d.Model
    | d.Service
    | d.TrafficClass
    | d.ResidencyPolicy
    | d.Tenant
    | d.PlanPolicy,
    Field(discriminator="kind"),
]


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one document of a fleet file."""
    adapter: TypeAdapter[Any] = TypeAdapter(_Any)
    schema = adapter.json_schema(by_alias=True, schema_generator=GenerateJsonSchema)
    return {"$schema": _DIALECT, "title": "Hinterland fleet file", **schema}


def explain(path: str) -> str:
    """What a field means: ``explain("Site.spec.power.supplies")``.

    Raises RefusedError naming the nearest field for a path the format does not have.
    """
    parts = [part for part in path.strip().split(".") if part]
    cls = d.KINDS.get(parts[0]) if parts else None
    if cls is None:
        first = parts[0] if parts else ""
        hint = did_you_mean(first, d.KINDS) or f"; one of {', '.join(d.KINDS)}"
        raise RefusedError(f'no kind "{first}"{hint}')
    field: FieldInfo | None = None
    for depth, part in enumerate(parts[1:], start=1):
        owner = model_at(cls, tuple(parts[1:depth]))
        fields = {f.alias or name: f for name, f in owner.model_fields.items()} if owner else {}
        if part not in fields:
            where = ".".join(parts[:depth])
            raise RefusedError(f'no field "{part}" in {where}{did_you_mean(part, fields)}')
        field = fields[part]
    below = model_at(cls, tuple(parts[1:]))
    return _text(".".join(parts), field=field, below=below)


def _text(path: str, *, field: FieldInfo | None, below: type[BaseModel] | None) -> str:
    lines = [path if field is None else f"{path}: {_form(field)}"]
    about = (field.description if field else None) or (below.__doc__ if below else "") or ""
    lines += textwrap.wrap(about, width=96, initial_indent="  ", subsequent_indent="  ")
    if field is not None and not field.is_required():
        lines.append(f"  Default: {_default(field)}")
    if below is not None:
        lines.append("  Fields:")
        named = [(f.alias or name, f) for name, f in below.model_fields.items()]
        named.sort(key=lambda pair: pair[0] == "source")  # inherited, so it would come first
        width = max(len(name) for name, _ in named)
        for name, one in named:
            star = "*" if one.is_required() else " "
            lines.append(
                f"  {star} {name:<{width}}  {_form(one)}  {one.description or ''}".rstrip()
            )
        lines.append("  (* required)")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    default = field.get_default()
    if default in (None, "", [], ()):
        return "none"
    return str(list(default) if isinstance(default, tuple) else default)


def _form(field: FieldInfo) -> str:
    measure = next((m for m in field.metadata if isinstance(m, Measure)), None)
    if measure is not None:
        example = f'{measure.dimension.name}, e.g. "{measure.dimension.example}"'
        return f"<{example}; or 24 of them>" if measure.hourly else f"<{example}>"
    if any(isinstance(m, PartOfWhole) for m in field.metadata):
        return '<number from 0 to 1, or e.g. "80 %">'
    return f"<{_type_name(field.annotation)}>"


_SIMPLE = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): ""}


def _type_name(annotation: Any) -> str:
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        measure = next((m for m in args[1:] if isinstance(m, Measure)), None)
        if measure is not None:
            return f'{measure.dimension.name}, e.g. "{measure.dimension.example}"'
        return _type_name(args[0])
    if origin is list:
        return f"list of {_type_name(args[0])}"
    if origin is typing.Literal:
        return " | ".join(str(one) for one in args)
    if args:
        return " or ".join(filter(None, (_type_name(one) for one in args)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return "value"
