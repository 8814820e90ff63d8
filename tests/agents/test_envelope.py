"""Signed assignments: what was signed comes back, anything else is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from agents.envelope import (
    PAYLOAD_TYPE,
    key_id,
    open_assignment,
    pre_authentication_encoding,
    public_key_from_pem,
    sign_assignment,
)
from sites.assignment import SiteAssignment
from sites.errors import InvalidFactError
from sites.fleet import SiteGateway

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
ASSIGNMENT = SiteAssignment(
    site_id="bruges",
    country="BE",
    residency_tags=("iso27001",),
    legal_entity="Hinterland NV",
    gateway=SiteGateway(client_address="127.0.0.1:1", peer_address="127.0.0.1:2"),
    epoch=1,
    version=2,
    plan_digest="sha256:00",
    policy_digest="sha256:11",
    issued_at_ms=1,
    expires_at_ms=2,
    parent_digest="",
    power_budget_w=1_000.5,
    pue=1.2,
    pools=(),
    groups=(),
    routes=(),
    services=(("chat", ("m-q4",)),),
    tenants=(),
    policies=(),
    peers=(),
    api_key_jwks="{}",
)
SIGNED = sign_assignment(ASSIGNMENT, key=KEY)


def test_what_was_signed_comes_back() -> None:
    assert open_assignment(SIGNED, key=PUBLIC) == ASSIGNMENT


def test_the_encoding_is_the_published_example() -> None:
    """The example of the DSSE v1 specification (protocol.md, "Test vectors")."""
    encoded = pre_authentication_encoding(
        b"hello world", payload_type="http://example.com/HelloWorld"
    )
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_another_implementation_of_dsse_agrees() -> None:
    key = SSlibKey.from_crypto(PUBLIC, keyid=key_id(PUBLIC))
    envelope = Envelope.from_dict(json.loads(SIGNED))
    assert envelope.verify([key], 1)
    assert envelope.payload_type == PAYLOAD_TYPE


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_flipped_bit_passes(position: int, flip: int) -> None:
    """The key id alone may differ: it is a hint, and what it hints at is not trusted."""
    damaged = bytearray(SIGNED)
    damaged[position] ^= flip
    try:
        assert open_assignment(bytes(damaged), key=PUBLIC) == ASSIGNMENT
    except InvalidFactError:
        return
    assert SIGNED.index(b'"signatures"') < position


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFactError):
        open_assignment(data, key=PUBLIC)


def resigned(payload: bytes) -> bytes:
    envelope = json.loads(SIGNED)
    envelope["payload"] = base64.b64encode(payload).decode()
    signature = KEY.sign(pre_authentication_encoding(payload))
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(envelope).encode()


def test_a_strangers_signature_is_refused() -> None:
    forged = sign_assignment(ASSIGNMENT, key=Ed25519PrivateKey.generate())
    with pytest.raises(InvalidFactError, match="not of this fleet's control plane"):
        open_assignment(forged, key=PUBLIC)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"[" * 5_000 + b"]" * 5_000, "not JSON|nested deeper"),
        (b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"{}", "missing"),
        (b'{"unknown":1}', "unknown field"),
        (b"nonsense", "not JSON"),
    ],
)
def test_a_signed_payload_still_has_to_be_an_assignment(payload: bytes, why: str) -> None:
    with pytest.raises(InvalidFactError, match=why):
        open_assignment(resigned(payload), key=PUBLIC)


def test_a_payload_that_is_not_canonical_is_refused() -> None:
    payload = base64.b64decode(json.loads(SIGNED)["payload"])
    with pytest.raises(InvalidFactError, match="canonical"):
        open_assignment(resigned(payload + b" "), key=PUBLIC)


def test_an_oversized_envelope_is_refused() -> None:
    with pytest.raises(InvalidFactError, match="exceeds limit"):
        open_assignment(b" " * (5 * 1024 * 1024), key=PUBLIC)


def test_only_an_ed25519_public_key_is_read(tmp_path: Path) -> None:
    pem = PUBLIC.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public_key_from_pem(pem) == PUBLIC
    with pytest.raises(InvalidFactError, match="not a PEM public key"):
        public_key_from_pem(b"nothing")
