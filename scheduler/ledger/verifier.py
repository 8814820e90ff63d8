"""Check an exported Hinterland ledger, alone: standard library and `cryptography`, nothing else.

    python verifier.py EXPORT [--key VERIFIER_KEY] [--seen CHECKPOINT_FILE]

EXPORT is an export (JSON lines), a copied ledger database, or a folder holding one. Recomputed from
the bytes: every leaf hash, the Merkle root (RFC 6962) at every signed checkpoint (C2SP
tlog-checkpoint), every agent's record sequence, and for every execution record whether country,
site tags, transit and ingress were lawful under the policy it names and the one in force when it
started; times whose records were lost are listed. `--key` pins the log's public key; `--seen`, an
earlier checkpoint, shows cuts and forks. Exit 0: sound, lawful; 4: sound, breached; 1: not sound.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "hinterland-ledger-export/1"
SHOWN = 20
Row = tuple[int, str, int, bytes, str]  # index, kind, at_ms, payload, leaf hash in hex


@dataclass
class Source:
    """What an export holds; `rows` may be walked once. `size` is what the export itself claims."""

    verifier_key: str
    size: int
    notes: list[str]
    rows: Iterator[Row]


@dataclass
class Verdict:
    """What the check found. `sequences`: next expected record sequence by agent."""

    verifier_key: str
    size: int = 0
    root: str = ""
    checkpoints: int = 0
    records: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)


class Tree:
    """An append-only Merkle tree as the roots of its complete subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        size, node = self.size, leaf
        while size & 1:
            node = hashlib.sha256(b"\x01" + self.peaks.pop() + node).digest()
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        root = self.peaks[-1] if self.peaks else hashlib.sha256(b"").digest()
        for peak in reversed(self.peaks[:-1]):
            root = hashlib.sha256(b"\x01" + peak + root).digest()
        return root


def open_note(note: str, verifier_key: str) -> tuple[int, bytes]:
    """(size, root) of a signed checkpoint; raises ValueError or InvalidSignature."""
    name, key_id, encoded = verifier_key.split("+", 2)
    key = base64.b64decode(encoded, validate=True)
    text, rest = note.split("\n\n", 1)
    origin, size, root = text.split("\n")[:3]
    if key_id != hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] or key[:1] != b"\x01":
        raise ValueError("the key is damaged")
    signature = base64.b64decode(rest.rstrip("\n").rpartition(" ")[2], validate=True)
    line = f"\u2014 {name} {base64.b64encode(signature).decode()}\n"
    if origin != name or rest != line or signature[:4].hex() != key_id:
        raise ValueError(f"a checkpoint is not signed by {verifier_key}")
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], f"{text}\n".encode())
    return int(size), base64.b64decode(root, validate=True)


def open_source(path: Path, stack: contextlib.ExitStack) -> Source:
    """Open an export, whatever its form; `stack` closes it."""
    path = path / "ledger.sqlite" if path.is_dir() else path
    with path.open("rb") as file:
        is_database = file.read(16).startswith(b"SQLite format 3")
    if not is_database:
        return _open_lines(stack.enter_context(path.open(encoding="utf-8", newline="")))
    uri = f"{path.resolve().as_uri()}?mode=ro"
    db = stack.enter_context(contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)))
    db.execute("BEGIN")  # one snapshot, though a server may be writing
    meta = dict(db.execute("SELECT name, value FROM meta"))
    notes = [str(row[0]) for row in db.execute("SELECT note FROM checkpoints ORDER BY size")]
    size = int(db.execute("SELECT count(*) FROM entries").fetchone()[0])
    query = "SELECT idx, kind, at_ms, payload, lower(hex(leaf_hash)) FROM entries ORDER BY idx"
    return Source(meta.get("verifier_key", ""), size, notes, iter(db.execute(query)))


def dump_line(value: dict[str, Any]) -> str:
    """The one way an export writes a line (so no change of a byte goes unnoticed)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"


def _read_line(line: str, fields: set[str]) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict) or set(value) != fields or dump_line(value) != line:
        raise ValueError("a line is not what an export holds")
    return value


def _open_lines(lines: TextIO) -> Source:
    header = _read_line(lines.readline(), {"format", "size", "verifier_key", "checkpoints"})
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, this verifier reads {FORMAT!r}")

    def rows() -> Iterator[Row]:
        for line in lines:
            e = _read_line(line, {"index", "kind", "at_ms", "payload", "leaf_hash"})
            yield e["index"], e["kind"], e["at_ms"], e["payload"].encode(), e["leaf_hash"]

    return Source(header["verifier_key"], header["size"], header["checkpoints"], rows())


def crossable(policy: dict[str, Any], country: str) -> bool:
    processing, transit = policy["processing_countries"], policy["transit_countries"]
    return processing is None or transit is None or country in transit or country in processing


def judge(record: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    """Everything unlawful about where one record's data was, under one accepted plan's rules."""
    policy = rules["policies"].get(record["residency_policy_id"])
    site = rules["sites"].get(record["serving_site_id"])
    if policy is None or site is None:
        return [f"its policy {record['residency_policy_id']} or site is not in the plan it names"]
    country, processing = site["country"], policy["processing_countries"]
    claimed = record["serving_country"]
    wrong = [] if claimed == country else [f"claims {claimed}, site is in {country}"]
    if processing is not None and country not in processing:
        wrong.append(f"processed in {country}")
    missing = sorted(set(policy["required_tags"]) - set(site["residency_tags"]))
    if missing:
        wrong.append(f"site lacks {', '.join(missing)}")
    wrong += [f"crossed {c}" for c in record["transit_countries"] if not crossable(policy, c)]
    ingress = rules["sites"].get(record["ingress_site_id"])
    if ingress is None or not crossable(policy, ingress["country"]):
        where = "an unknown site" if ingress is None else ingress["country"]
        wrong.append(f"entered in {where}")
    return wrong


class Residency:
    """Judges records in ledger order: a record can only name a plan accepted before it."""

    def __init__(self) -> None:
        self.by_digest: dict[str, dict[str, Any]] = {}
        self.in_force: list[dict[str, Any]] = []

    def accept(self, plan: dict[str, Any]) -> None:
        policies, sites = plan["problem"]["policies"], plan["problem"]["fleet"]["sites"]
        rules = {
            "at_ms": plan["at_ms"],
            "policies": {p["policy_id"]: p for p in policies},
            "sites": {s["site_id"]: s for s in sites},
        }
        self.by_digest[plan["policy_digest"]] = rules
        self.in_force.append(rules)

    def judge(self, record: dict[str, Any]) -> tuple[list[str], list[str]]:
        """(unlawful under the policies it names, unlawful only under newer ones in force then)."""
        if not record["serving_site_id"]:
            return [], []
        named = self.by_digest.get(record["policy_digest"])
        if named is None:
            return ["it names residency policies no accepted plan holds"], []
        wrong = judge(record, named)
        begun = record["started_at_ms"] - record["clock_error_ms"]
        current = next((r for r in reversed(self.in_force) if r["at_ms"] <= begun), named)
        return wrong, [] if wrong or current is named else judge(record, current)


def _check_record(verdict: Verdict, residency: Residency, index: int, payload: bytes) -> None:
    record = json.loads(payload)
    agent, sequence = record["agent_site_id"], record["sequence"]
    expected = verdict.sequences.get(agent, 0)
    if sequence != expected:
        verdict.faults.append(f"entry {index}: {agent} sequence {sequence}, expected {expected}")
    verdict.sequences[agent] = sequence + 1
    verdict.records += 1
    verdict.refused += not record["serving_site_id"]
    if record["decision"] == "unrecorded":
        span = f"{record['started_at_ms']} to {record['ended_at_ms']} ms"
        verdict.unrecorded.append(f"entry {index}: {agent}, {span}: {record['reason']}")
    wrong, late = residency.judge(record)
    name = f"entry {index}: {agent} record {sequence} at {record['serving_site_id']}"
    verdict.breaches += [f"{name}: {one}" for one in wrong]
    verdict.late += [f"{name}: {one} under a newer policy" for one in late]


def _walk(source: Source, verdict: Verdict, heads: dict[int, bytes]) -> None:
    tree, residency = Tree(), Residency()
    for index, kind, at_ms, payload, claimed in source.rows:
        if index != tree.size:
            verdict.faults.append(f"entry {index} stands where entry {tree.size} belongs")
        leaf = hashlib.sha256(b"\x00" + f"{kind} {at_ms}\n".encode() + payload).digest()
        if leaf.hex() != claimed:
            verdict.faults.append(f"entry {index} does not match its hash")
        tree.append(leaf)
        if tree.size in heads and heads[tree.size] != tree.root():
            verdict.faults.append(f"the first {tree.size} entries are not the ones signed")
        if kind == "ExecutionRecord":
            _check_record(verdict, residency, index, payload)
        elif kind == "PlanAccepted":
            residency.accept(json.loads(payload))
    verdict.size, verdict.root = tree.size, tree.root().hex()


def _check(source: Source, verdict: Verdict, key: str, seen: tuple[Path, ...]) -> None:
    verdict.verifier_key = source.verifier_key
    if key not in ("", source.verifier_key):
        verdict.faults.append("the export is of another log: its key is not the one given")
    heads: dict[int, bytes] = {}
    for note in (*source.notes, *(one.read_text() for one in seen)):
        size, root = open_note(note, key or source.verifier_key)
        if heads.setdefault(size, root) != root:
            verdict.faults.append(f"two different roots are signed at {size} entries: a fork")
    verdict.checkpoints, newest = len(heads), max(heads, default=0)
    _walk(source, verdict, heads)
    if not verdict.size == source.size == newest:
        claim = f"says it holds {source.size}; {newest} are signed"
        verdict.faults.append(f"holds {verdict.size} entries; {claim}")


def verify(path: Path, *, key: str = "", seen: tuple[Path, ...] = ()) -> Verdict:
    """Check an export; every finding is a line in the verdict, nothing is raised."""
    verdict = Verdict(verifier_key=key)
    try:
        with contextlib.ExitStack() as stack:
            _check(open_source(path, stack), verdict, key, seen)
    except InvalidSignature:
        verdict.faults.append("a checkpoint's signature does not hold")
    except (OSError, sqlite3.Error, ValueError, KeyError) as fault:
        verdict.faults.append(f"{path}: {getattr(fault, 'strerror', '') or fault}")
    except (TypeError, AttributeError, RecursionError) as fault:  # JSON of an unexpected shape
        verdict.faults.append(f"an entry is not what its kind says: {fault}")
    return verdict


def report(verdict: Verdict) -> str:
    """The verdict for people."""
    agents = ", ".join(f"{site} 0-{n - 1}" for site, n in sorted(verdict.sequences.items()))
    lines = [
        f"log      {verdict.verifier_key}",
        f"entries  {verdict.size}, {verdict.checkpoints} signed checkpoints, root {verdict.root}",
        f"records  {verdict.records} ({verdict.refused} not run); sequences {agents or '-'}",
    ]
    found = (("FAULT", verdict.faults), ("BREACH", verdict.breaches), ("LATE", verdict.late))
    for title, items in (*found, ("UNRECORDED", verdict.unrecorded)):
        lines += [f"{title}: {one}" for one in items[:SHOWN]]
        lines += [f"{title}: {SHOWN} of {len(items)} shown"] if len(items) > SHOWN else []
    word = "SOUND, RESIDENCY BREACHED" if verdict.breaches else "SOUND, no residency breach"
    word += " among what was recorded; some records were lost" if verdict.unrecorded else ""
    return "\n".join([*lines, "NOT SOUND: do not rely on it" if verdict.faults else word])


def exit_code(verdict: Verdict) -> int:
    """0 sound and lawful, 1 not sound, 4 sound but breached."""
    return 1 if verdict.faults else 4 if verdict.breaches else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Check an exported Hinterland ledger.")
    parser.add_argument("export", type=Path)
    parser.add_argument("--key", default="", help="the log's public key, from elsewhere")
    parser.add_argument("--seen", type=Path, action="append", default=[], help="a checkpoint file")
    given = parser.parse_args(arguments)
    verdict = verify(given.export, key=given.key, seen=tuple(given.seen))
    sys.stdout.write(report(verdict) + "\n")
    return exit_code(verdict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
