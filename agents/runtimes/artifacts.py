"""Where a variant's weights lie at this site, and whether they are the ones the catalog names.

Decides nothing about engines. ``package:NAME/PATTERN`` looks inside an installed Python package
without importing it; ``file:PATH`` on the disk. Nothing is ever downloaded here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from sites.catalog import Variant
from sites.errors import RefusedError

_CHUNK_BYTES = 1024 * 1024


def locate(variant: Variant) -> Path:
    """The one file of the variant's weights, checked against `artifact_sha256` where given.

    Raises RefusedError naming what is missing or differs.
    """
    scheme, _, rest = variant.artifact.partition(":")
    if scheme == "package":
        path = _in_package(variant, rest)
    elif scheme == "file":
        path = Path(rest)
    else:
        raise RefusedError(
            f"variant {variant.variant_id}: artifact {variant.artifact!r} is neither package: nor "
            "file:; this runtime fetches nothing"
        )
    if not path.is_file():
        raise RefusedError(f"variant {variant.variant_id}: no file {path}; put the weights there")
    wanted = variant.artifact_sha256.removeprefix("sha256:")
    stat = path.stat()
    found = _sha256(path, size=stat.st_size, changed_ns=stat.st_mtime_ns) if wanted else ""
    if wanted != found:
        raise RefusedError(
            f"variant {variant.variant_id}: {path.name} has sha256 {found}, must be {wanted}; "
            "replace the file"
        )
    return path


def _in_package(variant: Variant, rest: str) -> Path:
    package, _, pattern = rest.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise RefusedError(
            f"variant {variant.variant_id}: Python package {package!r} is not installed here"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(folder.glob(pattern or "*.gguf"))
    if len(found) != 1:
        raise RefusedError(
            f"variant {variant.variant_id}: {len(found)} files match {pattern or '*.gguf'} in "
            f"package {package!r}, must be 1"
        )
    return found[0]


@lru_cache(maxsize=64)
def _sha256(path: Path, *, size: int, changed_ns: int) -> str:
    """Digest of a file; `size` and `changed_ns` make a changed file a new question."""
    del size, changed_ns
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
