"""A tenant is found again under the very name its gateway gave it, and not without its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.gateway import access_log
from scheduler.pki import Authority
from scheduler.tenant_audit import tenant_pseudonym
from sites.assignment import TenantBinding
from sites.clock import ManualClock
from sites.errors import RefusedError


def test_the_gateway_and_the_audit_agree_on_a_tenants_pseudonym(tmp_path: Path) -> None:
    authority = Authority(tmp_path, clock=ManualClock(start_ms=1_800_000_000_000))
    binding = TenantBinding(
        tenant_id="daugava/clinic",
        residency_policy_id="eu",
        pseudonym_key=authority.pseudonym_key("daugava/clinic"),
    )
    written = access_log.tenant_pseudonym(binding)
    assert tenant_pseudonym(tmp_path, "daugava/clinic") == written
    other = authority.pseudonym_key("other")
    assert other != binding.pseudonym_key
    assert tenant_pseudonym(tmp_path, "other") != written


def test_without_its_key_a_tenant_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="its records are anonymous"):
        tenant_pseudonym(tmp_path, "acme")
