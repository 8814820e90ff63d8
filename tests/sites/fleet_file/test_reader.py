"""Properties of reading: any bytes are a fleet or a refusal with places, nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sites.digest import digest
from sites.fleet_file import FleetDescription, FleetFileError, load_bytes, load_fleet
from sites.fleet_file.reader import Node, read_bytes

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "deploy" / "examples" / "demo"
SAMPLE = (DEMO / "sites.yaml").read_bytes()
PLACE = re.compile(r"f\.yaml(:[1-9][0-9]*:[1-9][0-9]*)?: error: .+")

ALPHABET = st.sampled_from(
    [
        *"{}[]:,-#&*!|>'\"%@`?\n \t\\<~",
        "kind: Site",
        "NO",
        "---\n",
        "spec:",
        "\\U00110000",
        "%YAML 9",
    ]
)


def only_a_refusal(content: bytes) -> None:
    try:
        made = load_bytes(content, file="f.yaml")
    except FleetFileError as refused:
        assert refused.faults
        for line in str(refused).splitlines():
            assert PLACE.match(line) or line.endswith("faults shown"), line
    else:
        assert isinstance(made, FleetDescription)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_read(content: bytes) -> None:
    only_a_refusal(content)


@given(st.lists(ALPHABET, max_size=60).map("".join))
@settings(max_examples=400, deadline=None)
def test_any_yaml_like_text_is_refused_or_read(text: str) -> None:
    only_a_refusal(text.encode())


@given(
    st.integers(min_value=0, max_value=len(SAMPLE) - 1),
    st.binary(max_size=6),
    st.integers(min_value=0, max_value=20),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_to_a_good_file_is_refused_or_read(at: int, put: bytes, cut: int) -> None:
    only_a_refusal(SAMPLE[:at] + put + SAMPLE[at + cut :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "spec", "metadata", "name", "power"]), inner)
    ),
    max_leaves=12,
)


@given(st.sampled_from(["Site", "Model", "Market", "ResidencyPolicy", "PlanPolicy"]), JSON)
@settings(max_examples=200, deadline=None)
def test_any_spec_is_refused_or_read(kind: str, spec: object) -> None:
    only_a_refusal(json.dumps({"kind": kind, "spec": spec, "metadata": spec}).encode())


def plain(text: str) -> object:
    faults: list[object] = []
    reading = read_bytes(text.encode(), file="f.yaml", faults=faults)  # type: ignore[arg-type]
    assert not faults
    (node,) = reading.documents
    return node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("12", 12),
        ("012", 12),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ('"12"', "12"),
        ("9" * 40, "9" * 40),
        ("{a: [1, b]}", {"a": [1, "b"]}),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert plain(text) == value


def test_nodes_know_their_place() -> None:
    reading = read_bytes(b"a:\n  - {b: 1}\n", file="f.yaml", faults=[])
    (root,) = reading.documents
    node = root.get("a", 0, "b")
    assert isinstance(node, Node)
    assert (node.place.line, node.place.column) == (2, 9)
    assert root.key_place("a", 0, "b").column == 6
    assert root.nearest("a", 0, "gone").column == 5


def test_files_may_be_split_and_ordered_anyhow(tmp_path: Path) -> None:
    whole = load_fleet(DEMO)
    documents = [
        document
        for path in sorted(DEMO.glob("*.yaml"))
        for document in path.read_text().split("---\n")
    ]
    for number, document in enumerate(reversed(documents)):
        (tmp_path / f"{number:02}.yml").write_text(document)
    assert digest(load_fleet(tmp_path)) == digest(whole)
    assert digest(load_fleet(sorted(DEMO.glob("*.yaml")))) == digest(whole)


def test_a_symlink_to_a_folder_that_holds_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    for path in DEMO.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    assert digest(load_fleet(tmp_path)) == digest(load_fleet(DEMO))
