"""Plain values to readable YAML text. Decides layout only: short maps in one line, strings quoted
where a reader could take them for something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

WIDTH = 98
_PLAIN = re.compile(r"[A-Za-z$][A-Za-z0-9 ._/$%()=;~+-]*\Z")
_MEASURE = re.compile(r"-?[0-9.]+ [A-Za-z%][A-Za-z0-9/]*\Z")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def documents(title: str, found: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    """The text of one file: a comment, then one document per (kind, name, spec)."""
    parts = [_document(kind, name, spec) for kind, name, spec in found]
    return "".join(f"# {line}\n" for line in title.splitlines()) + "---\n".join(parts)


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> str:
    head = f"apiVersion: hinterland/v1\nkind: {kind}\nmetadata: {{name: {_scalar(name)}}}\nspec:\n"
    return head + "".join(_block(spec, "  "))


def _block(value: Mapping[str, Any], indent: str) -> Iterable[str]:
    for key, item in value.items():
        if item is None:
            continue
        yield from _entry(f"{indent}{key}:", item, indent)


def _entry(head: str, item: Any, indent: str) -> Iterable[str]:
    flow = _flow(item)
    if flow is not None and len(head) + 1 + len(flow) <= WIDTH:
        yield f"{head} {flow}\n"
    elif isinstance(item, Mapping):
        yield f"{head}\n"
        yield from _block(item, indent + "  ")
    elif isinstance(item, list) and all(not isinstance(one, Mapping) for one in item):
        yield f"{head} [\n"
        yield from _wrapped([_scalar(one) for one in item], indent + "  ")
        yield f"{indent}]\n"
    elif isinstance(item, list):
        yield f"{head}\n"
        for one in item:
            yield from _item(one, indent + "  ")
    else:
        yield f"{head} >-\n"
        yield from _folded(str(item), indent + "  ")


def _item(value: Mapping[str, Any], indent: str) -> Iterable[str]:
    flow = _flow(value)
    if flow is not None and len(indent) + 2 + len(flow) <= WIDTH:
        yield f"{indent}- {flow}\n"
        return
    lines = "".join(_block(value, indent + "  "))
    yield f"{indent}- {lines[len(indent) + 2 :]}"


def _flow(value: Any) -> str | None:
    if isinstance(value, Mapping):
        parts = [(key, _flow(item)) for key, item in value.items() if item is not None]
        if any(text is None or isinstance(value[key], Mapping) for key, text in parts):
            return None
        return "{" + ", ".join(f"{key}: {text}" for key, text in parts) + "}"
    if isinstance(value, list):
        if any(isinstance(one, Mapping | list) for one in value):
            return None
        return "[" + ", ".join(_scalar(one) for one in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    text = str(value)
    plain = (_PLAIN.match(text) and not text.endswith(" ")) or _MEASURE.match(text)
    if plain and (text.lower() not in _WORDS or text == "NO"):
        return text
    return json.dumps(text, ensure_ascii=False)


def _wrapped(items: list[str], indent: str) -> Iterable[str]:
    line = indent
    for item in items:
        if len(line) + len(item) + 1 > WIDTH:
            yield line.rstrip() + "\n"
            line = indent
        line += f"{item}, "
    yield line.rstrip() + "\n"


def _folded(text: str, indent: str) -> Iterable[str]:
    line = indent
    for word in text.split():
        if line.strip() and len(line) + len(word) > WIDTH:
            yield line.rstrip() + "\n"
            line = indent
        line += f"{word} "
    yield line.rstrip() + "\n"
