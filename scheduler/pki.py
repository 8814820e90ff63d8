"""The development certificate authority and the control plane's signing keys, made at first start.

Decides who is issued what, for how long, and when a certificate is renewed (at half its life).
Who may connect as whom is the front door's to judge; checking API keys is the gateways'.

Layout under ``<state>/pki``: ``ca.crt``, ``ca.key``, ``control.crt``, ``control.key``,
``assignment.key`` (Ed25519), ``api_keys.key`` (P-256), ``sites/<id>/`` (an agent's ``--pki-dir``,
see `agents.credentials`), ``tenants/<id>.pseudonym``.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agents.credentials import (
    CONTROL_IDENTITY,
    CONTROL_SERVER_NAME,
    SiteCredentials,
    gateway_identity,
    site_identity,
)
from sites.clock import Clock
from sites.errors import FatalError, RetryableError
from sites.units import require_id

API_KEY_ISSUER = "hinterland"
API_KEY_AUDIENCE = "hinterland-gateway"
API_KEY_TTL_S = 365 * 86_400
CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(hours=24)
BACKDATE = timedelta(hours=1)
"""Certificates start this long ago, so that a site whose clock runs behind accepts them."""

_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsIdentity:
    """PEM certificate and private key of one party, and the authority it trusts."""

    certificate: bytes
    private_key: bytes
    ca_certificate: bytes


class Authority:
    """The fleet's certificate authority and signing keys, on disk. Single owner: the server."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        """Open the authority in `folder`, making it if it is not there.

        Raises FatalError if a key cannot be read or written.
        """
        self.folder = folder
        self._clock = clock
        try:
            for place in (folder, folder / "sites", folder / "tenants"):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._ca_key = self._ec_key("ca.key")
            self._ca = self._ca_certificate()
            self.assignment_key = self._assignment_key()
            self._api_key = self._ec_key("api_keys.key")
        except OSError as fault:
            raise FatalError(f"pki folder {folder}: {fault.strerror}") from fault
        except RetryableError as fault:
            raise FatalError(str(fault)) from fault
        except (ValueError, TypeError) as fault:
            raise FatalError(
                f"pki folder {folder}: a key or certificate is unreadable; restore it from a "
                "backup, or move the folder away to found a new fleet"
            ) from fault

    def control_identity(self) -> TlsIdentity:
        """The front door's certificate, renewed if half its life is over."""
        self._ensure_leaf(
            self.folder / "control.crt",
            self.folder / "control.key",
            identity=CONTROL_IDENTITY,
            usages=(_SERVER, _CLIENT),
            names=(CONTROL_SERVER_NAME, "localhost"),
        )
        return TlsIdentity(
            certificate=(self.folder / "control.crt").read_bytes(),
            private_key=(self.folder / "control.key").read_bytes(),
            ca_certificate=(self.folder / "ca.crt").read_bytes(),
        )

    def site_credentials(self, site_id: str) -> SiteCredentials:
        """The site's folder with current agent and gateway certificates, renewed where due."""
        require_id(site_id, field="site_id")
        place = SiteCredentials(folder=self.folder / "sites" / quote(site_id, safe=""))
        place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ensure_leaf(
            place.agent_cert,
            place.agent_key,
            identity=site_identity(site_id),
            usages=(_CLIENT,),
        )
        self._ensure_leaf(
            place.gateway_cert,
            place.gateway_key,
            identity=gateway_identity(site_id),
            usages=(_SERVER, _CLIENT),
        )
        _write_if_new(place.ca_cert, (self.folder / "ca.crt").read_bytes())
        public = self.assignment_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write_if_new(place.assignment_key, public)
        return place

    @property
    def api_key_jwks(self) -> str:
        """JSON Web Key Set (public keys only) that gateways check API keys with."""
        numbers = self._api_key.public_key().public_numbers()
        point = {"x": numbers.x, "y": numbers.y}
        key = {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self._api_key_id(),
            **{k: _base64url(v.to_bytes(32, "big")) for k, v in point.items()},
        }
        return json.dumps({"keys": [key]}, sort_keys=True, separators=(",", ":"))

    def issue_api_key(self, tenant_id: str, *, ttl_s: int = API_KEY_TTL_S) -> str:
        """An API key of a tenant: an ES256 JWT (RFC 7519) valid for `ttl_s` seconds."""
        require_id(tenant_id, field="tenant_id")
        now_s = self._clock.wall_ms() // 1_000
        claims: dict[str, str | int] = {
            "iss": API_KEY_ISSUER,
            "aud": API_KEY_AUDIENCE,
            "sub": tenant_id,
            "iat": now_s,
            "exp": now_s + ttl_s,
            "jti": secrets.token_hex(16),
        }
        header = {"alg": "ES256", "kid": self._api_key_id(), "typ": "JWT"}
        signed = f"{_base64url_json(header)}.{_base64url_json(claims)}"
        der = self._api_key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def pseudonym_key(self, tenant_id: str) -> str:
        """Hex key of the tenant's pseudonyms; removing its file makes old records anonymous."""
        require_id(tenant_id, field="tenant_id")
        path = self.folder / "tenants" / f"{quote(tenant_id, safe='')}.pseudonym"
        if not path.exists():
            _write(path, secrets.token_hex(32).encode(), mode=0o600)
        return path.read_text(encoding="ascii")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ms() / 1_000, tz=UTC)

    def _api_key_id(self) -> str:
        return hashlib.sha256(_public_der(self._api_key)).hexdigest()[:16]

    def _ec_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        path = self.folder / name
        if not path.exists():
            _write(path, _private_pem(ec.generate_private_key(ec.SECP256R1())), mode=0o600)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{name} is not an elliptic-curve key")
        return key

    def _assignment_key(self) -> Ed25519PrivateKey:
        path = self.folder / "assignment.key"
        if not path.exists():
            _write(path, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("assignment.key is not an Ed25519 key")
        return key

    def _ca_certificate(self) -> x509.Certificate:
        path = self.folder / "ca.crt"
        if not path.exists():
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hinterland development CA")])
            now = self._now()
            certificate = (
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(name)
                .public_key(self._ca_key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - BACKDATE)
                .not_valid_after(now + CA_LIFE)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_key_usage(is_ca=True), critical=True)
                .add_extension(
                    x509.SubjectKeyIdentifier.from_public_key(self._ca_key.public_key()),
                    critical=False,
                )
                .sign(self._ca_key, hashes.SHA256())
            )
            _write(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return x509.load_pem_x509_certificate(path.read_bytes())

    def _ensure_leaf(
        self,
        cert_path: Path,
        key_path: Path,
        *,
        identity: str,
        usages: tuple[x509.ObjectIdentifier, ...],
        names: tuple[str, ...] = (),
    ) -> None:
        if self._is_current(cert_path, key_path):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._leaf(key.public_key(), identity=identity, usages=usages, names=names)
        _write(key_path, _private_pem(key), mode=0o600)
        _write(cert_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)

    def _is_current(self, cert_path: Path, key_path: Path) -> bool:
        """Whether the pair is whole, of this authority, and in the first half of its life."""
        if not (cert_path.exists() and key_path.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        try:
            certificate.verify_directly_issued_by(self._ca)
        except InvalidSignature:
            return False
        pair = key.public_key() == certificate.public_key()
        return pair and self._now() < half_life(certificate)

    def _leaf(
        self,
        public_key: ec.EllipticCurvePublicKey,
        *,
        identity: str,
        usages: tuple[x509.ObjectIdentifier, ...],
        names: tuple[str, ...],
    ) -> x509.Certificate:
        now = self._now()
        sans: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity)]
        sans += [x509.DNSName(n) for n in names]
        if names:
            sans.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._ca.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName(sans), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()),
                critical=False,
            )
            .sign(self._ca_key, hashes.SHA256())
        )


def half_life(certificate: x509.Certificate) -> datetime:
    """The moment from which a certificate is due for renewal."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life / 2


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _base64url_json(value: dict[str, str | int] | dict[str, str]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _write_if_new(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        _write(path, data, mode=0o644)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    """Replace a file in one move, durable on return. Raises RetryableError if it cannot be
    written; the old one is then untouched.
    """
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as fault:
        if name:
            Path(name).unlink(missing_ok=True)
        raise RetryableError(
            f"{path}: not written: {fault.strerror}; free disk space or mend the disk"
        ) from fault
