"""The authority issues what it should, to whom it should, and renews in time."""

from __future__ import annotations

import base64
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.verification import PolicyBuilder, Store

from agents.credentials import CONTROL_SERVER_NAME, gateway_identity, site_identity
from agents.envelope import public_key_from_pem
from scheduler.pki import API_KEY_AUDIENCE, API_KEY_ISSUER, LEAF_LIFE, Authority
from sites.clock import ManualClock
from sites.errors import FatalError, InvalidFactError, RetryableError

NOON_MS = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=NOON_MS)


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return Authority(tmp_path / "pki", clock=clock)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def uris(one: x509.Certificate) -> list[str]:
    names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_a_site_gets_two_identities_and_the_keys_to_check_others(authority: Authority) -> None:
    place = authority.site_credentials("bruges")
    assert uris(certificate(place.agent_cert)) == [site_identity("bruges")]
    assert uris(certificate(place.gateway_cert)) == [gateway_identity("bruges")]
    public = public_key_from_pem(place.assignment_key.read_bytes())
    assert public == authority.assignment_key.public_key()
    for key in (place.agent_key, place.gateway_key, authority.folder / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_no_private_key_of_the_control_plane_lies_in_a_sites_folder(authority: Authority) -> None:
    place = authority.site_credentials("bruges")
    secrets = [
        (authority.folder / n).read_bytes() for n in ("ca.key", "assignment.key", "api_keys.key")
    ]
    for path in place.folder.iterdir():
        assert path.read_bytes() not in secrets


def test_the_control_planes_certificate_verifies_for_its_name_alone(
    authority: Authority, clock: ManualClock
) -> None:
    identity = authority.control_identity()
    store = Store([x509.load_pem_x509_certificate(identity.ca_certificate)])
    now = datetime.fromtimestamp(clock.wall_ms() / 1_000, tz=UTC)
    builder = PolicyBuilder().store(store).time(now)
    verifier = builder.build_server_verifier(x509.DNSName(CONTROL_SERVER_NAME))
    leaf = x509.load_pem_x509_certificate(identity.certificate)
    assert verifier.verify(leaf, [])[0] == leaf
    agent = certificate(authority.site_credentials("bruges").agent_cert)
    with pytest.raises(x509.verification.VerificationError):
        verifier.verify(agent, [])
    clients = builder.build_client_verifier()
    assert clients.verify(agent, []).chain[0] == agent


def test_certificates_are_renewed_at_half_their_life(
    authority: Authority, clock: ManualClock
) -> None:
    first = authority.control_identity()
    clock.advance_ms(int(LEAF_LIFE.total_seconds() * 1_000) // 3)
    assert authority.control_identity() == first
    clock.advance_ms(int(LEAF_LIFE.total_seconds() * 1_000) // 3)
    second = authority.control_identity()
    assert second.certificate != first.certificate
    assert second.ca_certificate == first.ca_certificate
    renewed = x509.load_pem_x509_certificate(second.certificate)
    assert renewed.not_valid_after_utc > datetime.fromtimestamp(
        clock.wall_ms() / 1_000, tz=UTC
    ) + timedelta(hours=23)


def test_a_restart_keeps_every_key(tmp_path: Path, clock: ManualClock) -> None:
    first = Authority(tmp_path / "pki", clock=clock)
    before = (first.control_identity(), first.api_key_jwks, first.pseudonym_key("acme"))
    second = Authority(tmp_path / "pki", clock=clock)
    assert (second.control_identity(), second.api_key_jwks, second.pseudonym_key("acme")) == before
    assert second.assignment_key.public_key() == first.assignment_key.public_key()


def test_half_a_pair_is_replaced(authority: Authority) -> None:
    place = authority.site_credentials("bruges")
    other = authority.site_credentials("ghent")
    place.agent_key.write_bytes(other.agent_key.read_bytes())
    authority.site_credentials("bruges")
    mended = certificate(place.agent_cert)
    assert uris(mended) == [site_identity("bruges")]
    assert place.agent_key.read_bytes() != other.agent_key.read_bytes()


def test_a_site_id_never_leaves_its_folder(authority: Authority) -> None:
    place = authority.site_credentials("a/../../b")
    assert place.folder.parent == authority.folder / "sites"
    with pytest.raises(InvalidFactError):
        authority.site_credentials("../up")


def test_an_unreadable_key_is_one_clear_error(tmp_path: Path, clock: ManualClock) -> None:
    Authority(tmp_path / "pki", clock=clock)
    (tmp_path / "pki" / "ca.key").write_text("nonsense")
    with pytest.raises(FatalError, match="unreadable; restore it from a backup"):
        Authority(tmp_path / "pki", clock=clock)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_an_api_key_is_a_token_the_published_keys_verify(authority: Authority) -> None:
    header, claims, signature = authority.issue_api_key("acme", ttl_s=60).split(".")
    jwk: dict[str, Any] = json.loads(authority.api_key_jwks)["keys"][0]
    assert "d" not in jwk
    point = {k: int.from_bytes(decoded(jwk[k]), "big") for k in ("x", "y")}
    key = ec.EllipticCurvePublicNumbers(curve=ec.SECP256R1(), **point).public_key()
    raw = decoded(signature)
    assert len(raw) == 64
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(der, f"{header}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    said = json.loads(decoded(claims))
    assert (said["iss"], said["aud"], said["sub"]) == (API_KEY_ISSUER, API_KEY_AUDIENCE, "acme")
    assert said["exp"] - said["iat"] == 60
    assert json.loads(decoded(header)) == {"alg": "ES256", "kid": jwk["kid"], "typ": "JWT"}


def test_two_keys_of_a_tenant_differ(authority: Authority) -> None:
    first, second = (authority.issue_api_key("acme").split(".")[1] for _ in range(2))
    assert json.loads(decoded(first))["jti"] != json.loads(decoded(second))["jti"]
    assert authority.pseudonym_key("acme") != authority.pseudonym_key("other")


def test_a_key_that_cannot_be_written_may_be_asked_for_again(authority: Authority) -> None:
    (authority.folder / "tenants").rmdir()
    with pytest.raises(RetryableError, match=r"acme\.pseudonym: not written"):
        authority.pseudonym_key("acme")
    (authority.folder / "tenants").mkdir()
    assert len(authority.pseudonym_key("acme")) == 64
