"""What a residency policy allows: countries and tags for processing, countries for passing through.

Decides `may_process`, `may_transit` and which of two policies is stricter. Who chooses sites by
these answers is the optimizer; who enforces them on a site is the agent and its gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sites.units import require_country, require_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidencyPolicy:
    """One residency class: lawful countries for processing and for transit.

    `processing_countries` / `transit_countries`: sorted ISO 3166-1 alpha-2 codes; None means any
    country. `transfer_mechanism` names the legal basis (``adequacy``, ...). `required_tags` are
    residency tags (certifications, contracts) a site must carry. A country in which data may be
    processed may always be crossed.
    """

    policy_id: str
    processing_countries: tuple[str, ...] | None
    transit_countries: tuple[str, ...] | None
    required_tags: tuple[str, ...] = ()
    transfer_mechanism: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        require_id(self.policy_id, field="policy_id")
        for countries in (self.processing_countries, self.transit_countries):
            for country in countries or ():
                require_country(country, field=f"residency policy {self.policy_id}")


def may_process(policy: ResidencyPolicy, *, country: str, tags: Iterable[str]) -> bool:
    """Whether data under `policy` may be processed at a site in `country` carrying `tags`."""
    lawful = policy.processing_countries is None or country in policy.processing_countries
    return lawful and set(policy.required_tags) <= set(tags)


def may_transit(policy: ResidencyPolicy, *, country: str) -> bool:
    """Whether data under `policy` may cross `country`."""
    if policy.processing_countries is None or policy.transit_countries is None:
        return True
    return country in policy.transit_countries or country in policy.processing_countries


def is_at_least_as_strict(policy: ResidencyPolicy, than: ResidencyPolicy) -> bool:
    """Whether everything `policy` allows, `than` allows too (so a request may switch to it)."""
    return (
        _within(policy.processing_countries, than.processing_countries)
        and _within(_crossable(policy), _crossable(than))
        and set(policy.required_tags) >= set(than.required_tags)
    )


def _within(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    if outer is None:
        return True
    return inner is not None and set(inner) <= set(outer)


def _crossable(policy: ResidencyPolicy) -> tuple[str, ...] | None:
    if policy.processing_countries is None or policy.transit_countries is None:
        return None
    return (*policy.transit_countries, *policy.processing_countries)
