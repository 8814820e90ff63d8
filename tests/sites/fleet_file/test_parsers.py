"""PyYAML's two parsers, libyaml and the one in Python: what both read they read alike."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sites.fleet_file import FleetFileError, load_bytes, reader
from sites.fleet_file.faults import Fault
from sites.fleet_file.reader import DEPTH_MAX, Reading, read_bytes

EUROPE = Path(__file__).resolve().parents[3] / "deploy" / "examples" / "europe"
PARSERS = [yaml.CBaseLoader, yaml.BaseLoader] if yaml.__with_libyaml__ else [yaml.BaseLoader]
both = pytest.mark.parametrize("parser", PARSERS)

PLAIN = (
    *"{}[],#'\" \n",
    *("a", "b1", "NO", "é", "\U0001f600", "1e3", "x:y", "<", "~", "- ", ": ", ":\n", "k: v\n"),
    *("\n  ", "\n- ", "\r\n", "# c", " #", "---\n", "...\n", "''", '""', "\\", "|\n ", ">-\n "),
    *("<<: ", "&x ", "*x ", "!!str a", "! 12", "{a: ", "[1, ", "- {site: a, rtt: 1 ms}\n"),
)
ODD = (
    *("\t", "? ", "a?b", "a:}", "%YAML 1.2\n", "%TAG ! x\n", "%A\n"),
    *("!x!y ", "|#\n", "|2\n", "\\ud83d"),
)


def read(parser: type, text: str) -> tuple[Reading, set[Fault]]:
    faults: list[Fault] = []
    with mock.patch.object(reader, "_LOADER", parser):
        return read_bytes(text.encode(), file="f.yaml", faults=faults), set(faults)


def flat(value: object, spot: tuple) -> list[object]:
    """Every value with its place; that of an empty one in braces is each parser's own."""
    found: list[object] = [spot[2:4] if value is None else spot[:4], repr(value)]
    keys = range(len(value)) if isinstance(value, list) else value
    for key in keys if isinstance(value, dict | list) else ():
        found += flat(value[key], spot[4][key])
    return found


def texts(*pieces: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=24).map(lambda some: "".join(some) + "\n")


@given(texts(*PLAIN))
@settings(max_examples=600, deadline=None)
def test_both_read_the_same_nodes_in_the_same_places(text: str) -> None:
    (first, faults), (last, same_faults) = read(PARSERS[0], text), read(PARSERS[-1], text)
    assert first.complete == last.complete
    if first.complete:
        nodes = [[flat(node.value, node.spot) for node in one.documents] for one in (first, last)]
        assert nodes[0] == nodes[1]
        assert faults == same_faults
    else:
        assert faults
        assert same_faults


@given(texts(*PLAIN, *ODD))
@settings(max_examples=400, deadline=None)
def test_odd_text_is_refused_by_one_or_read_alike_by_both(text: str) -> None:
    readings = [read(parser, text)[0] for parser in PARSERS]
    if all(one.complete for one in readings):
        values = [[node.value for node in one.documents] for one in readings]
        assert repr(values[0]) == repr(values[-1])


@given(st.text(max_size=60) | texts(*PLAIN, *ODD, "\\U00110000", '"\\ud800"'))
@settings(max_examples=300, deadline=None)
def test_neither_lets_an_error_of_its_own_through(text: str) -> None:
    for parser in PARSERS:
        with mock.patch.object(reader, "_LOADER", parser):
            try:
                load_bytes(text.encode("utf-8", "surrogatepass"))
            except FleetFileError as refused:
                assert refused.faults


def test_both_read_the_example_alike() -> None:
    text = (EUROPE / "markets.yaml").read_text()
    (first, faults), (last, _) = read(PARSERS[0], text), read(PARSERS[-1], text)
    assert not faults
    assert first == last


@both
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("é\U0001f600: [1\r\nb: }\n", (2, 2)),
        ('k: 1\nå: "x\n', (3, 1)),
        ("å: [1", (1, 6)),
        ("a: 1\rb: 2\n\n  c: 3\n", (4, 4)),
        ("k: 1\n- é\n", (2, 1)),
    ],
)
def test_a_syntax_fault_stands_where_the_text_breaks(
    parser: type, text: str, place: tuple[int, int]
) -> None:
    reading, faults = read(parser, text)
    (fault,) = faults
    assert not reading.complete
    assert fault.message.startswith("not YAML: ")
    assert (fault.line, fault.column) == place


@both
def test_columns_count_characters(parser: type) -> None:
    reading, faults = read(parser, "\ufeffåé: [\U0001f600, {ø: 1}]\r\nb:\n")
    (root,) = reading.documents
    assert not faults
    assert root.get("åé", 1, "ø") is not None
    assert root.nearest("åé", 1, "ø")[1:] == (1, 13)
    assert root.key_place("åé", 1, "ø")[1:] == (1, 10)
    assert root.key_place("b")[1:] == (2, 1)


@both
def test_only_quoted_text_stays_text(parser: type) -> None:
    text = "a: [1, '1', \"1\", ~, '', NO, .5, true, 'true']\nb: |-\n  1\nc: >-\n  1\nd:\n"
    (root,) = read(parser, text)[0].documents
    assert root.value == {
        "a": [1, "1", "1", None, "", "NO", 0.5, True, "true"],
        "b": "1",
        "c": "1",
        "d": None,
    }


@both
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%YAML 1.2\n---\na: 1\n", set()),
        ("%YAML 1.1\n---\na: 1\n", {(1, 1)}),
        ("%YAML 1.3\n---\na: 1\n", {(1, 1)}),
        ("%TAG ! x:\n---\na: 1\n", {(1, 1)}),
        ("a: ! 12\n", {(1, 4)}),
        ("! a: 12\n", {(1, 1)}),
        ("- !!map {a: 1}\n- &b [1]\n- *b\n", {(1, 3), (2, 3), (3, 3)}),
        ('<<: 1\n"<<": 2\n', {(1, 1), (2, 1)}),
        ("a: 1\nb:\n  a: 2\n  a: 3\na: [4]\n", {(4, 3), (5, 1)}),
    ],
)
def test_features_are_refused_where_they_stand(
    parser: type, text: str, expected: set[tuple[int, int]]
) -> None:
    _, faults = read(parser, text)
    assert {(fault.line, fault.column) for fault in faults} == expected


@both
@pytest.mark.parametrize("opens", ["[", "{", "- ", "? ", "{a: ", "[[a, b], "])
def test_depth_is_limited_before_it_costs(parser: type, opens: str) -> None:
    reading, faults = read(parser, opens * 100_000)
    assert not reading.complete
    assert any(fault.message == f"nested over {DEPTH_MAX} levels deep" for fault in faults)


@both
def test_a_document_cut_short_is_left_out(parser: type) -> None:
    reading, _ = read(parser, "a: 1\n---\nb: [1\nc: }\n")
    assert [node.value for node in reading.documents] == [{"a": 1}]
