"""Signed tree heads: C2SP tlog-checkpoint texts, signed as C2SP notes with Ed25519.

Decides the text and whether a signature on it holds; where keys and checkpoints lie is `store`'s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sites.errors import RefusedError

_ED25519 = b"\x01"
_DASH = "\u2014 "


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The log named `origin` held `size` entries under `root`; `note` is the signed text."""

    origin: str
    size: int
    root: bytes
    note: str


def _key_id(origin: str, public: bytes) -> bytes:
    return hashlib.sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(origin: str, public: Ed25519PublicKey) -> str:
    """The C2SP text of a public key: ``name+keyid+base64(type || key)``."""
    raw = public.public_bytes_raw()
    encoded = base64.b64encode(_ED25519 + raw).decode()
    return f"{origin}+{_key_id(origin, raw).hex()}+{encoded}"


def sign_checkpoint(*, origin: str, size: int, root: bytes, key: Ed25519PrivateKey) -> Checkpoint:
    """Sign the head of a tree of `size` entries."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    public = key.public_key().public_bytes_raw()
    signature = base64.b64encode(_key_id(origin, public) + key.sign(text.encode())).decode()
    note = f"{text}\n{_DASH}{origin} {signature}\n"
    return Checkpoint(origin=origin, size=size, root=root, note=note)


def open_checkpoint(note: str, *, verifier: str) -> Checkpoint:
    """Check a signed note against a public key text; raises RefusedError saying what is wrong."""
    try:
        return _open(note, verifier)
    except (ValueError, binascii.Error, InvalidSignature) as fault:
        detail = str(fault) or "its signature is not by the log's key"
        raise RefusedError(f"checkpoint: {detail}; use the log's own checkpoint and key") from fault


def _open(note: str, verifier: str) -> Checkpoint:
    name, _, rest = verifier.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = base64.b64decode(encoded, validate=True)
    if raw[:1] != _ED25519 or len(raw) != 33 or _key_id(name, raw[1:]).hex() != key_id:
        raise ValueError("the verifier key is damaged")
    text, separator, signatures = note.partition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) < 3 or lines[0] != name:
        raise ValueError(f"it is not a checkpoint of the log {name!r}")
    size, root = int(lines[1]), base64.b64decode(lines[2], validate=True)
    if str(size) != lines[1] or size < 0 or len(root) != 32:
        raise ValueError("its size or root is malformed")
    for line in signatures.splitlines():
        signer, _, signature = line.removeprefix(_DASH).partition(" ")
        if line.startswith(_DASH) and signer == name:
            signed = base64.b64decode(signature, validate=True)
            if signed[:4].hex() == key_id:
                public = Ed25519PublicKey.from_public_bytes(raw[1:])
                public.verify(signed[4:], f"{text}\n".encode())
                return Checkpoint(origin=name, size=size, root=root, note=note)
    raise ValueError("it carries no signature by the log's key")
