"""The published schema is current, accepts what the reader accepts, and explains every field."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel

from sites.errors import RefusedError
from sites.fleet_file import explain, find_files, json_schema
from sites.fleet_file.check import model_at
from sites.fleet_file.documents import KINDS
from sites.fleet_file.reader import read_file

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "deploy" / "schema" / "hinterland.v1.json"


def test_the_published_schema_is_current() -> None:
    current = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    assert PUBLISHED.read_text() == current, (
        "run: hinterland schema > deploy/schema/hinterland.v1.json"
    )


def test_the_schema_accepts_the_examples_and_refuses_a_misspelling() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    for path in find_files((ROOT / "deploy" / "examples" / "demo",)):
        for node in read_file(path, []).documents:
            document = node.value
            assert not list(validator.iter_errors(document)), path
            document["spec"]["cuont"] = 1
            assert list(validator.iter_errors(document)), path


def paths_of(cls: type[BaseModel], loc: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, field in cls.model_fields.items():
        here = (*loc, field.alias or name)
        found.append(here)
        below = model_at(cls, (here[-1],))
        if below is not None:
            found += paths_of(below, here)
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_has_a_description(kind: str) -> None:
    for loc in paths_of(KINDS[kind]):
        text = explain(".".join((kind, *loc)))
        assert len(text.splitlines()) > 1, text


def test_explain_reads_so() -> None:
    assert explain("Site.spec.power.budget") == (
        'Site.spec.power.budget: <power budget, e.g. "2 MW"; or 24 of them>\n'
        "  Most the site may draw for inference, cooling included."
    )
    assert explain("Market.spec.accesses") == (
        "Market.spec.accesses: <list of mapping>\n"
        "  Sites it can enter at; at least one.\n"
        "  Fields:\n"
        "  * site    <text>  The site.\n"
        '  * rtt     <duration, e.g. "150 ms">  Round-trip time from the market.\n'
        "    source  <text>  Where the figures come from; estimates say so.\n"
        "  (* required)"
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Sight.spec", 'no kind "Sight"; did you mean "Site"?'),
        ("Site.spec.pwoer", 'no field "pwoer" in Site.spec; did you mean "power"?'),
        ("Site.spec.country.code", 'no field "code" in Site.spec.country'),
        ("", 'no kind ""; one of Site, Link, Market, Model, Service, TrafficClass, '
         "ResidencyPolicy, Tenant, PlanPolicy"),
    ],
)  # fmt: skip
def test_explain_refuses_what_is_not_there(path: str, message: str) -> None:
    with pytest.raises(RefusedError) as refused:
        explain(path)
    assert str(refused.value) == message
