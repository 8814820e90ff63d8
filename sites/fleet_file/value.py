"""One field's value on its own, as a fleet file would read it: same units, ranges and complaints.

For what people write outside a file (`plan --what-if`). What the value is for is the caller's.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sites.errors import RefusedError
from sites.fleet_file import documents as d
from sites.fleet_file.check import model_at, reason
from sites.fleet_file.reader import resolve_scalar


def read_value(path: str, text: str) -> Any:
    """The value `text` gives the field at `path`, e.g. ``("PlanPolicy.spec.carbonCap", "5 kg/h")``.

    In the fact's unit; hourly fields answer a tuple. Raises RefusedError saying what is wrong.
    """
    kind, *parts = path.split(".")
    owner = model_at(d.KINDS[kind], tuple(parts[:-1]))
    assert owner is not None, path
    field = next(f for n, f in owner.model_fields.items() if (f.alias or n) == parts[-1])
    form: Any = (
        Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    )
    adapter: TypeAdapter[Any] = TypeAdapter(form, config=ConfigDict(strict=True))
    try:
        return adapter.validate_python(resolve_scalar(text))
    except ValidationError as error:
        raise RefusedError(reason(error.errors(include_url=False)[0])) from error
