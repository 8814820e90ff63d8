"""Signed assignments: DSSE envelopes around packed canonical JSON, signed with Ed25519.

Decides whether bytes are a well-formed envelope with a valid signature of the control plane, and
yields the assignment inside. Whether that assignment may be acted on (audience, rank, expiry, fit)
is `agents.trusted_plan`'s to judge. The format is the DSSE protocol v1 with one signature, and has
exactly one way to be written. What is signed are the packed bytes: nothing is unpacked, let alone
parsed, before its signature holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agents.frames import MAX_ASSIGNMENT_BYTES, MAX_MESSAGE_BYTES
from agents.packed import pack, require_plain_size, unpack
from sites.assignment import SiteAssignment
from sites.assignment_json import assignment_json
from sites.errors import InvalidFactError
from sites.plain import from_plain

PAYLOAD_TYPE = "application/vnd.hinterland.assignment.v1+gzip"
MAX_JSON_DEPTH = 32


def pre_authentication_encoding(payload: bytes, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """What is signed (DSSE v1 PAE): ``DSSEv1 len(type) type len(payload) payload``, lengths in
    bytes, decimal.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def sign_assignment(assignment: SiteAssignment, *, key: Ed25519PrivateKey) -> bytes:
    """The signed envelope of an assignment, as JSON bytes. Raises InvalidFactError over 4 MiB, or
    for an assignment over `MAX_ASSIGNMENT_BYTES` before it is packed.
    """
    plain = assignment_json(assignment)
    subject = f"assignment of {assignment.site_id}"
    require_plain_size(len(plain), limit_bytes=MAX_ASSIGNMENT_BYTES, subject=subject)
    payload = pack(plain)
    signature = key.sign(pre_authentication_encoding(payload))
    envelope = _written(payload, signature, key=key.public_key())
    if len(envelope) > MAX_MESSAGE_BYTES:
        raise InvalidFactError(
            f"{subject}: {len(envelope)} bytes exceeds limit {MAX_MESSAGE_BYTES} bytes; "
            "use fewer routes (services x tenants x policies) per site"
        )
    return envelope


def open_assignment(envelope: bytes, *, key: Ed25519PublicKey) -> SiteAssignment:
    """Verify the signature, then unpack and parse. Raises InvalidFactError saying what failed."""
    if len(envelope) > MAX_MESSAGE_BYTES:
        raise InvalidFactError(
            f"assignment envelope: {len(envelope)} bytes exceeds limit {MAX_MESSAGE_BYTES} bytes; "
            "use fewer routes (services x tenants x policies) per site"
        )
    payload, signature = _parts(_parse(envelope, subject="assignment envelope"))
    try:
        key.verify(signature, pre_authentication_encoding(payload))
    except InvalidSignature:
        raise InvalidFactError(
            "assignment envelope: the signature is not of this fleet's control plane; "
            "compare assignment.pub of the site with the control plane's"
        ) from None
    if _written(payload, signature, key=key) != envelope:
        raise InvalidFactError(
            "assignment envelope: not written as the control plane writes it; send it unchanged"
        )
    plain = unpack(payload, limit_bytes=MAX_ASSIGNMENT_BYTES, subject="assignment")
    assignment = from_plain(SiteAssignment, _parse(plain, subject="assignment"))
    if assignment_json(assignment) != plain:
        raise InvalidFactError("assignment: the payload is not its canonical JSON")
    return assignment


def public_key_from_pem(pem: bytes) -> Ed25519PublicKey:
    """Read an Ed25519 public key. Raises InvalidFactError for any other content."""
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as fault:
        raise InvalidFactError("assignment key: not a PEM public key") from fault
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidFactError("assignment key: not an Ed25519 key")
    return key


def _written(payload: bytes, signature: bytes, *, key: Ed25519PublicKey) -> bytes:
    """The envelope, byte for byte: a changed byte is refused even where it would mean the same."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(key), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def _parts(outer: Any) -> tuple[bytes, bytes]:
    """(payload, signature) of an envelope with exactly our payload type and one signature."""
    if not isinstance(outer, dict) or outer.keys() != {"payload", "payloadType", "signatures"}:
        raise InvalidFactError("assignment envelope: must hold payload, payloadType, signatures")
    if outer["payloadType"] != PAYLOAD_TYPE:
        raise InvalidFactError(f"assignment envelope: payloadType must be {PAYLOAD_TYPE}")
    signatures = outer["signatures"]
    if not (isinstance(signatures, list) and len(signatures) == 1):
        raise InvalidFactError("assignment envelope: must hold exactly one signature")
    if not isinstance(signatures[0], dict):
        raise InvalidFactError("assignment envelope: the signature is not an object")
    return _base64(outer["payload"]), _base64(signatures[0].get("sig"))


def _base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidFactError("assignment envelope: payload and signature must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise InvalidFactError("assignment envelope: not base64") from fault


def _parse(data: bytes, *, subject: str) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise InvalidFactError(f"{subject}: not JSON") from fault
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise InvalidFactError(f"{subject}: nested deeper than {MAX_JSON_DEPTH}")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit + 1):
        layer = [
            child
            for node in layer
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not layer:
            return False
    return True
