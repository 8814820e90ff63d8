"""Signed assignments: what was signed comes back, anything else is refused."""

from __future__ import annotations

import base64
import contextlib
import gzip
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
from agents.frames import MAX_ASSIGNMENT_BYTES
from agents.packed import pack
from sites.assignment import SiteAssignment
from sites.assignment_json import assignment_json
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
def test_no_changed_byte_passes(position: int, flip: int) -> None:
    damaged = bytearray(SIGNED)
    damaged[position] ^= flip
    with pytest.raises(InvalidFactError):
        open_assignment(bytes(damaged), key=PUBLIC)


@given(st.integers(0, len(SIGNED) - 1), st.binary(min_size=1, max_size=3))
def test_no_byte_left_out_or_put_in_passes(position: int, more: bytes) -> None:
    for other in (
        SIGNED[:position],
        SIGNED[:position] + SIGNED[position + 1 :],
        SIGNED[:position] + more + SIGNED[position:],
        SIGNED + more,
    ):
        if other != SIGNED:  # a digit put beside its like is one left out or put in elsewhere
            with pytest.raises(InvalidFactError):
                open_assignment(other, key=PUBLIC)


def test_the_envelope_has_one_form() -> None:
    """What any reader of JSON or base64 takes for the same is not taken here."""
    envelope = json.loads(SIGNED)
    spaced = json.dumps(envelope).encode()
    renamed = SIGNED.replace(envelope["signatures"][0]["keyid"].encode(), b"ab")
    signature = envelope["signatures"][0]["sig"]
    assert signature[-3] in "AQgw"  # its last four bits mean nothing
    slack = SIGNED.replace(
        signature.encode(), (signature[:-3] + after(signature[-3]) + "==").encode()
    )
    for other in (spaced, renamed, slack):
        with pytest.raises(InvalidFactError, match="not written as the control plane writes it"):
            open_assignment(other, key=PUBLIC)


def after(digit: str) -> str:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[digits.index(digit) + 1]


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFactError):
        open_assignment(data, key=PUBLIC)


def resigned(payload: bytes) -> bytes:
    """An envelope of any payload, signed by the control plane."""
    envelope = json.loads(SIGNED)
    envelope["payload"] = base64.b64encode(payload).decode()
    signature = KEY.sign(pre_authentication_encoding(payload))
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(envelope, separators=(",", ":")).encode()


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
        open_assignment(resigned(pack(payload)), key=PUBLIC)


def test_a_signed_payload_has_to_be_packed() -> None:
    payload = gzip.decompress(base64.b64decode(json.loads(SIGNED)["payload"]))
    assert payload == assignment_json(ASSIGNMENT)
    with pytest.raises(InvalidFactError, match=r"exceeds limit|not gzip"):
        open_assignment(resigned(payload), key=PUBLIC)


@given(st.integers(0, len(SIGNED)), st.integers(0, 255))
def test_a_damaged_payload_that_was_signed_is_refused(position: int, value: int) -> None:
    """As a faulty control plane might sign it; of its header gzip checks less than of the rest."""
    payload = bytearray(base64.b64decode(json.loads(SIGNED)["payload"]))
    payload[position % len(payload)] = value
    with contextlib.suppress(InvalidFactError):
        assert open_assignment(resigned(bytes(payload)), key=PUBLIC) == ASSIGNMENT


def test_a_payload_that_is_not_canonical_is_refused() -> None:
    with pytest.raises(InvalidFactError, match="canonical"):
        open_assignment(resigned(pack(assignment_json(ASSIGNMENT) + b" ")), key=PUBLIC)


def test_a_bomb_is_refused_by_what_it_declares_and_by_what_comes_out() -> None:
    """A payload of 100 KB for 96 MiB; the second one lies about it."""
    bomb = pack(bytes(96 * 1024 * 1024))
    with pytest.raises(
        InvalidFactError,
        match=f"100663296 bytes unpacked exceeds limit {MAX_ASSIGNMENT_BYTES} bytes; use fewer",
    ):
        open_assignment(resigned(bomb), key=PUBLIC)
    with pytest.raises(InvalidFactError, match="more than the 1000 bytes it declares"):
        open_assignment(resigned(bomb[:-4] + (1_000).to_bytes(4, "little")), key=PUBLIC)


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
