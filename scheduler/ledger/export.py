"""Write a ledger as one file an auditor can check elsewhere, with `verifier.py` alone.

The lines are what `scheduler.ledger.verifier` reads: a header with every signed checkpoint and the
public key, then one line per entry, payloads byte for byte. Times and tenants are not filtered: a
part of a log proves less than the whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from scheduler.ledger import verifier
from scheduler.ledger.reading import LedgerReader
from sites.errors import RefusedError


def export_lines(reader: LedgerReader) -> Iterator[str]:
    """The lines of an export up to the newest checkpoint; raises RefusedError on an empty log."""
    checkpoints = reader.checkpoints()
    if not checkpoints:
        raise RefusedError("audit: the ledger is empty; there is nothing to export")
    size = checkpoints[-1].size
    yield verifier.dump_line(
        {
            "format": verifier.FORMAT,
            "size": size,
            "verifier_key": reader.verifier_key,
            "checkpoints": [one.note for one in checkpoints],
        }
    )
    for entry in reader.entries(end=size):
        yield verifier.dump_line(
            {
                "index": entry.index,
                "kind": entry.kind,
                "at_ms": entry.at_ms,
                "payload": entry.payload.decode(),
                "leaf_hash": entry.leaf_hash.hex(),
            }
        )


def write_export(reader: LedgerReader, folder: Path) -> tuple[Path, Path]:
    """Write ``ledger.jsonl`` and the ``verifier.py`` that checks it into a new folder.

    Raises RefusedError where they exist already: an export is never overwritten.
    """
    lines, program = folder / "ledger.jsonl", folder / "verifier.py"
    for path in (lines, program):
        if path.exists():
            raise RefusedError(f"audit: {path} exists already; export to a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with lines.open("x", encoding="utf-8", newline="") as file:
        file.writelines(export_lines(reader))
    shutil.copyfile(verifier.__file__, program)
    return lines, program
