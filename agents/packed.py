"""Bytes packed with gzip, and unpacked within a bound.

Decides when unpacking is refused: by the size the bytes declare before anything is unpacked, then
by what comes out, so that no more than the bound is ever held. gzip (RFC 1952) because it ends with
the plain size and a checksum, and because anyone can unpack it without this code.
"""

from __future__ import annotations

import zlib

from sites.errors import InvalidFactError

_GZIP = 31
"""zlib's `wbits` for the gzip format with the largest window."""

_LEVEL = 1
"""Routes differ in little: level 1 makes a 30th of them, level 6 a 45th in twice the time."""

_SIZE_BYTES = 4


def pack(plain: bytes) -> bytes:
    """One gzip member without name or time."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return packer.compress(plain) + packer.flush()


def unpack(packed: bytes, *, limit_bytes: int, subject: str) -> bytes:
    """What was packed. Holds at most `limit_bytes` and one; raises InvalidFactError for more than
    that, for any other size than declared, and for what is not exactly one whole gzip member.
    """
    declared_bytes = int.from_bytes(packed[-_SIZE_BYTES:], "little")
    require_plain_size(declared_bytes, limit_bytes=limit_bytes, subject=subject)
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        plain = unpacker.decompress(packed, declared_bytes + 1)
    except zlib.error as fault:
        raise InvalidFactError(f"{subject}: not gzip, or damaged ({fault}); send it anew") from None
    if len(plain) > declared_bytes:
        raise InvalidFactError(
            f"{subject}: unpacks to more than the {declared_bytes} bytes it declares; "
            "it was not packed by this control plane"
        )
    if not unpacker.eof:
        raise InvalidFactError(f"{subject}: its gzip stream is cut short; send it anew")
    if unpacker.unused_data:
        raise InvalidFactError(
            f"{subject}: {len(unpacker.unused_data)} bytes follow its gzip stream, limit 0 bytes; "
            "pack it as one member"
        )
    return plain


def require_plain_size(size_bytes: int, *, limit_bytes: int, subject: str) -> None:
    """Raises InvalidFactError if `size_bytes` of plain content are more than the limit."""
    if size_bytes > limit_bytes:
        raise InvalidFactError(
            f"{subject}: {size_bytes} bytes unpacked exceeds limit {limit_bytes} bytes; "
            "use fewer routes (services x tenants x policies) per site"
        )
