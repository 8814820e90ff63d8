"""Golden fault texts: every kind of bad input gives its own line, with its place, all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from sites.fleet_file import FleetFileError, load_bytes, load_fleet
from sites.fleet_file.reader import BYTES_MAX, DEPTH_MAX

SITE = """\
apiVersion: hinterland/v1
kind: Site
metadata: {name: osl-1}
spec:
  country: NO
  power:
    budget: 2 MW
    pue: 1.1
    supplies:
      - {name: grid, kind: grid, limit: 2 MW, price: $0.05/kWh}
  pools:
    - {name: h, accelerator: h100, count: 4, memory: 80 GiB, price: $2.50/h}
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(FleetFileError) as refused:
        load_bytes(text.encode(), file="f.yaml")
    return str(refused.value).splitlines()


def changed(old: str, new: str) -> list[str]:
    assert old in SITE
    return faults_of(SITE.replace(old, new))


def document(kind: str, name: str, spec: str) -> str:
    return (
        f"---\napiVersion: hinterland/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "count: 4",
            "cuont: 4",
            'f.yaml:12:36: error: unknown field "cuont" in spec.pools[0]; did you mean "count"?',
        ),
        (
            "budget: 2 MW",
            "budget: 2 MV",
            'f.yaml:7:13: error: spec.power.budget: "2 MV": "MV" is no unit of power budget; '
            'write e.g. "2 MW"',
        ),
        (
            "budget: 2 MW",
            "budget: 2 furlong",
            'f.yaml:7:13: error: spec.power.budget: "2 furlong": "furlong" is not a unit known '
            'here; write e.g. "2 MW"',
        ),
        (
            "budget: 2 MW",
            "budget: 2",
            'f.yaml:7:13: error: spec.power.budget: 2 has no unit; write e.g. "2 MW"',
        ),
        (
            "budget: 2 MW",
            "budget: -2 MW",
            'f.yaml:7:13: error: spec.power.budget: "-2 MW" is negative; a power budget is at '
            "least 0",
        ),
        (
            "budget: 2 MW",
            "budget: [1 MW, 2 MW]",
            "f.yaml:7:13: error: spec.power.budget: has 2 values; give one, or 24 (one per hour)",
        ),
        (
            "budget: 2 MW",
            "budget: .nan",
            'f.yaml:7:13: error: spec.power.budget: nan has no unit; write e.g. "2 MW"',
        ),
        (
            "pue: 1.1",
            "pue: .nan",
            "f.yaml:8:10: error: spec.power.pue: nan must be a finite number",
        ),
        (
            "pue: 1.1",
            "pue: 0.9",
            "f.yaml:8:10: error: spec.power.pue: 0.9 must be greater than or equal to 1",
        ),
        (
            "price: $0.05/kWh",
            "price: €0.05/kWh",
            'f.yaml:10:54: error: spec.power.supplies[0].price: "€0.05/kWh": currencies are not '
            'converted, give US dollars; write e.g. "$0.08/kWh"',
        ),
        (
            "kind: grid",
            "kind: gird",
            'f.yaml:10:28: error: spec.power.supplies[0].kind: "gird" must be "on_site", "ppa", '
            '"grid" or "peak"',
        ),
        (
            "country: NO",
            "country: false",
            "f.yaml:5:12: error: spec.country: False must be a valid string",
        ),
        (
            "country: NO",
            "country: Norway",
            'f.yaml:5:12: error: spec.country: "Norway" is not an ISO 3166-1 alpha-2 country code; '
            "write two capitals, e.g. NO",
        ),
        (
            "country: NO",
            "country: NO\n  country: SE",
            'f.yaml:6:3: error: "country" is given twice; first in line 5',
        ),
        (
            "country: NO",
            "country: &c NO",
            "f.yaml:5:12: error: anchor &c: fleet files use no anchors",
        ),
        (
            "country: NO",
            "country: !!str NO",
            "f.yaml:5:12: error: tag tag:yaml.org,2002:str: fleet files use no tags",
        ),
        (
            "kind: Site",
            "kind: Sight",
            'f.yaml:2:7: error: unknown kind "Sight"; did you mean "Site"?',
        ),
        (
            "hinterland/v1",
            "hinterland/v2",
            'f.yaml:1:13: error: apiVersion: "hinterland/v2" must be "hinterland/v1"',
        ),
        (
            "{name: osl-1}",
            "{name: Osl 1}",
            'f.yaml:3:18: error: metadata.name: "Osl 1" is not a name; use 1-200 of a-z 0-9 . _ / '
            ": @ + -, starting and ending with a letter or digit",
        ),
        (
            "supplies:\n      - {name: grid, kind: grid, limit: 2 MW, price: $0.05/kWh}",
            "supplies: []",
            "f.yaml:9:15: error: spec.power.supplies: is empty; give at least one",
        ),
        (
            "count: 4",
            'count: "4"',
            'f.yaml:12:43: error: spec.pools[0].count: "4" must be a valid integer',
        ),
    ],
)
def test_one_fault_reads_so(old: str, new: str, expected: str) -> None:
    assert changed(old, new) == [expected]


def test_all_faults_come_at_once_in_file_order() -> None:
    bad = SITE.replace("2 MW\n", "2 MV\n").replace("count: 4", "cuont: 4").replace("NO", "Norway")
    assert [line.split(": error")[0] for line in faults_of(bad)] == [
        "f.yaml:5:12",
        "f.yaml:7:13",
        "f.yaml:12:36",
    ]


def test_aliases_merges_and_odd_keys_are_refused() -> None:
    text = "kind: Site\nspec: {<<: *base, [1]: 2}\n"
    assert faults_of(text) == [
        'f.yaml:1:1: error: field "apiVersion" is missing',
        'f.yaml:1:1: error: field "metadata" is missing',
        'f.yaml:2:7: error: field "country" is missing in spec',
        'f.yaml:2:7: error: field "pools" is missing in spec',
        'f.yaml:2:7: error: field "power" is missing in spec',
        "f.yaml:2:8: error: merge key <<: write the fields out instead",
        'f.yaml:2:8: error: unknown field "<<" in spec',
        "f.yaml:2:12: error: alias *base: write the value out instead",
        "f.yaml:2:19: error: a key must be plain text",
    ]


def test_a_site_without_power_is_named() -> None:
    start, end = SITE.index("  power:"), SITE.index("  pools:")
    text = SITE[:start] + SITE[end:]
    assert faults_of(text) == ['f.yaml:5:3: error: field "power" is missing in spec']


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_an_empty_file_is_an_empty_fleet(text: str) -> None:
    assert faults_of(text) == ["f.yaml: error: empty fleet: no document; describe a Site"]


def test_a_fleet_without_a_site_is_empty() -> None:
    text = document("Service", "chat", "{variants: [m]}")
    assert faults_of(text) == [
        "f.yaml:2:1: error: empty fleet: no Site document; describe at least one",
        'f.yaml:5:19: error: no variant "m"',
    ]


def test_two_sites_of_one_name() -> None:
    assert faults_of(f"{SITE}---\n{SITE}") == [
        'f.yaml:16:18: error: site "osl-1" is given twice; first in f.yaml:3'
    ]


def test_missing_references_are_named_with_the_nearest() -> None:
    text = (
        SITE
        + document("Link", "l", "{between: [osl-1, osl-2], rtt: 1 ms, bandwidth: 1 Gbit/s}")
        + document("Market", "oslo", "{country: NO, accesses: [{site: osl1, rtt: 1 ms}]}")
        + document("Tenant", "t", "{residencyPolicy: eea}")
    )
    assert faults_of(text) == [
        'f.yaml:17:25: error: no site "osl-2"; did you mean "osl-1"?',
        'f.yaml:22:39: error: no site "osl1"; did you mean "osl-1"?',
        'f.yaml:27:25: error: no residency policy "eea"',
    ]


def test_a_refused_document_is_no_missing_reference() -> None:
    text = SITE.replace("2 MW\n", "2 MV\n") + document(
        "Market", "oslo", "{country: NO, accesses: [{site: osl-1, rtt: 1 ms}]}"
    )
    assert len(faults_of(text)) == 1


def test_a_class_may_not_be_laxer_than_its_tenant() -> None:
    text = (
        SITE
        + document("Market", "oslo", "{country: NO, accesses: [{site: osl-1, rtt: 1 ms}]}")
        + document("ResidencyPolicy", "eea", "{processingCountries: [NO, SE]}")
        + document("ResidencyPolicy", "no-only", "{processingCountries: [NO]}")
        + document("Tenant", "t", "{residencyPolicy: no-only}")
        + document(
            "Model",
            "m",
            "{parametersB: 1, contextTokens: 1, variants: [{name: v, precision: bf16, "
            "weights: 1 GiB, cachePerToken: 1 KiB/tok, quality: 1}]}",
        )
        + document("Service", "chat", "{variants: [v]}")
        + document(
            "TrafficClass",
            "c",
            "{market: oslo, service: chat, tenant: t, residencyPolicy: eea, rate: 1 req/s, "
            "slo: {ttft: 1 s, tpot: 50 ms}, inputTokens: 1, outputTokens: 1}",
        )
    )
    assert [line.split("error: ")[1] for line in faults_of(text)] == [
        'residency policy "eea" is laxer than "no-only" of tenant "t"; name one at least as strict'
    ]


def test_two_plan_policies_are_one_too_many() -> None:
    text = SITE + document("PlanPolicy", "a", "{}") + document("PlanPolicy", "b", "{}")
    assert faults_of(text) == ['f.yaml:19:1: error: one PlanPolicy is enough; "a" is given too']


def test_a_fact_the_format_cannot_refuse_is_a_fault_at_its_place() -> None:
    point = (
        "{variant: v, accelerator: a, decode: 1 tok/s, ttft: 1 ms, tpot: 1 ms, concurrency: 1, "
        "idlePower: 5 W, fullPower: 4 W, memory: 1 GiB}"
    )
    text = SITE + document(
        "Model",
        "m",
        f"\n  parametersB: 1\n  contextTokens: 1\n  servingPoints: [{point}]\n  variants:\n"
        "    - {name: v, precision: bf16, weights: 1 GiB, cachePerToken: 1 B/tok, quality: 1}",
    )
    assert faults_of(text) == [
        "f.yaml:20:19: error: serving point v@a-x1: full_w 4 is below idle_w 5"
    ]


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="the words are libyaml's")
def test_what_is_not_yaml_says_where() -> None:
    assert faults_of("a: [1\nb: }") == [
        "f.yaml:2:2: error: not YAML: did not find expected ',' or ']'"
    ]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_say_where(start: bytes) -> None:
    with pytest.raises(FleetFileError) as refused:
        load_bytes(start + "kind: Site\nnåme: ".encode() + b"\xff\n", file="f.yaml")
    assert str(refused.value) == "f.yaml:2:7: error: byte 0xff is not UTF-8"


@pytest.mark.parametrize("code", [0x00, 0x07, 0x7F, 0x85, 0x2028, 0xFEFF, 0xFFFE])
def test_a_character_that_has_no_place_in_text_is_named_with_its_place(code: int) -> None:
    assert faults_of(f"kind: Site\r\nnåme: \U0001f600 {chr(code)} [\n") == [
        f"f.yaml:2:9: error: character U+{code:04X} is not allowed in a fleet file"
    ]


def test_one_wrong_name_in_many_places_is_a_fault_in_each() -> None:
    access = "{country: NO, accesses: [{site: osl1, rtt: 1 ms}]}"
    text = SITE + "".join(document("Market", f"m{number}", access) for number in range(3))
    assert faults_of(text) == [
        f'f.yaml:{line}:39: error: no site "osl1"; did you mean "osl-1"?' for line in (17, 22, 27)
    ]


def test_depth_is_limited() -> None:
    text = "a: " + "[" * 10_000
    assert faults_of(text) == [
        f"f.yaml:1:{DEPTH_MAX + 3}: error: nested over {DEPTH_MAX} levels deep"
    ]


def test_size_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(FleetFileError) as refused:
        load_fleet(path)
    assert str(refused.value) == (
        f"{path}: error: {BYTES_MAX + 1} bytes, limit {BYTES_MAX} bytes; split the file"
    )


def test_paths_that_hold_nothing_are_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FleetFileError) as refused:
        load_fleet([empty, tmp_path / "gone.yaml", pipe])
    assert str(refused.value).splitlines() == [
        f"{empty}: error: no .yaml file in this folder",
        f"{tmp_path / 'gone.yaml'}: error: no such file or folder",
        f"{tmp_path / 'pipe.yaml'}: error: neither a file nor a folder",
    ]


def test_long_lists_of_faults_say_how_many_there_are() -> None:
    text = "\n".join(f"k{number}: &a{number} 1" for number in range(300))
    lines = faults_of(text)
    assert len(lines) == 201
    assert lines[-1] == "200 of 301 faults shown"


def test_what_a_file_holds_neither_breaks_a_fault_nor_steers_a_terminal() -> None:
    assert changed("country: NO", 'country: "N\\e[2J\\r\\n"') == [
        'f.yaml:5:12: error: spec.country: "N\\x1b[2J\\r\\n" is not an ISO 3166-1 alpha-2 country '
        "code; write two capitals, e.g. NO"
    ]
