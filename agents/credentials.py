"""Where a site's keys and certificates lie: the layout of an agent's ``--pki-dir``.

``scheduler.pki`` writes the folder, the agent and its gateway read it. Files are replaced by
rename, so a reader never sees half a file; readers read again at every (re)connect. Decides too
whether a certificate is of the site it is used for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sites.errors import FatalError

TRUST_DOMAIN = "hinterland"
CONTROL_IDENTITY = f"spiffe://{TRUST_DOMAIN}/control"
CONTROL_SERVER_NAME = "control.hinterland.internal"
"""DNS name in the control plane's certificate alone; agents verify it, whatever they dialled."""


def site_identity(site_id: str) -> str:
    """SPIFFE URI of a site's agent."""
    return f"spiffe://{TRUST_DOMAIN}/site/{site_id}"


def gateway_identity(site_id: str) -> str:
    """SPIFFE URI of a site's gateway."""
    return f"spiffe://{TRUST_DOMAIN}/gateway/{site_id}"


def site_of_identity(identity: str) -> str | None:
    """The site an agent's SPIFFE URI names, or None if it is not an agent's."""
    prefix = f"spiffe://{TRUST_DOMAIN}/site/"
    return identity.removeprefix(prefix) if identity.startswith(prefix) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteCredentials:
    """The six files a site holds; all PEM. Private keys are readable by their owner alone."""

    folder: Path

    @property
    def ca_cert(self) -> Path:
        """Certificate authority of the fleet."""
        return self.folder / "ca.crt"

    @property
    def agent_cert(self) -> Path:
        """Client certificate of the agent (SAN `site_identity`)."""
        return self.folder / "agent.crt"

    @property
    def agent_key(self) -> Path:
        """Private key of `agent_cert`."""
        return self.folder / "agent.key"

    @property
    def gateway_cert(self) -> Path:
        """Certificate of the site's Envoy, for both ends of site-to-site hops
        (SAN `gateway_identity`).
        """
        return self.folder / "gateway.crt"

    @property
    def gateway_key(self) -> Path:
        """Private key of `gateway_cert`."""
        return self.folder / "gateway.key"

    @property
    def assignment_key(self) -> Path:
        """Ed25519 public key that every assignment must be signed with."""
        return self.folder / "assignment.pub"


def require_identity(path: Path, identity: str) -> None:
    """Raise FatalError unless the certificate at `path` is of this SPIFFE identity."""
    try:
        certificate = x509.load_pem_x509_certificate(read_credential(path))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as fault:
        raise FatalError(f"credential {path}: no certificate of an agent: {fault}") from fault
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if identity not in found:
        raise FatalError(
            f"credential {path}: certificate of {', '.join(found) or 'nobody'}, needed is one of "
            f"{identity}; point --pki-dir at the site's own folder"
        )


def read_credential(path: Path) -> bytes:
    """Read one key or certificate. Raises FatalError naming the file and what to do."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise FatalError(
            f"credential {path}: {fault.strerror}; start the control plane once to make it, "
            "or point --pki-dir at the site's folder"
        ) from fault
