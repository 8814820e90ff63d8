"""Markets, tenants, residency policies, traffic classes and the plan policy.

Lengths and the shape of the day come from public traces, law from the residency tables; who asks
for what and how often is made up from city sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from build_sites import position
from campuses import CAMPUSES
from tables import HOURS, Row, Tables, distance_km, estimated_rtt_ms

Document = tuple[str, str, dict[str, Any]]

ACCESSES = 6
LAST_MILE_MS = 4.0
_UTC_OFFSET = {"GB": 0, "IE": 0, "PT": 0, "EE": 2, "FI": 2, "LT": 2, "LV": 2}
_CITIES = {
    "amsterdam": "Amsterdam", "barcelona": "Barcelona", "basel": "Basel", "bergen": "Bergen",
    "berlin": "Berlin", "birmingham": "Birmingham", "brussels": "Brussels", "budapest": "Budapest",
    "cologne": "Köln", "copenhagen": "Copenhagen", "dublin": "Dublin",
    "frankfurt": "Frankfurt am Main", "geneva": "Geneva", "glasgow": "Glasgow",
    "gothenburg": "Gothenburg", "hamburg": "Hamburg", "helsinki": "Helsinki", "krakow": "Kraków",
    "lisbon": "Lisbon", "london": "London", "lyon": "Lyon", "madrid": "Madrid",
    "manchester": "Manchester", "marseille": "Marseille", "milan": "Milan", "munich": "Munich",
    "oslo": "Oslo", "paris": "Paris", "prague": "Prague", "riga": "Riga", "rome": "Rome",
    "rotterdam": "Rotterdam", "stockholm": "Stockholm", "tallinn": "Tallinn",
    "toulouse": "Toulouse", "vienna": "Vienna", "vilnius": "Vilnius", "warsaw": "Warsaw",
    "zurich": "Zürich",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A made-up tenant: its policy, where its users are and what they ask for."""

    name: str
    policy: str
    markets: str
    services: str
    share: float
    priority: int
    data: str
    purpose: str
    protected: bool = False


CUSTOMERS = (
    Customer(name="alpen-versicherung", policy="ch-only", markets="basel geneva zurich",
             services="assistant summarise", share=1.0, priority=2, data="personal",
             purpose="claims handling", protected=True),
    Customer(name="bundesamt", policy="de-only", markets="berlin cologne frankfurt hamburg munich",
             services="chat extract", share=0.5, priority=1, data="personal",
             purpose="citizen services", protected=True),
    Customer(name="clinique-sud", policy="fr-hds", markets="marseille paris toulouse",
             services="summarise", share=0.5, priority=0, data="health",
             purpose="discharge letters", protected=True),
    Customer(name="codeworks", policy="none",
             markets="amsterdam barcelona berlin dublin helsinki krakow lisbon london paris prague "
             "stockholm vilnius",
             services="agent code", share=1.0, priority=6, data="source code",
             purpose="programming aid"),
    Customer(name="crown-services", policy="uk-only",
             markets="birmingham glasgow london manchester",
             services="quick summarise", share=0.5, priority=1, data="personal",
             purpose="citizen services", protected=True),
    Customer(name="eurohealth", policy="eu-strict",
             markets="amsterdam brussels dublin krakow madrid milan rome vienna warsaw",
             services="assistant summarise", share=0.6, priority=0, data="health",
             purpose="patient letters", protected=True),
    Customer(name="mediahaus", policy="gdpr-adequate",
             markets="amsterdam berlin cologne copenhagen hamburg london munich paris vienna "
             "zurich",
             services="draft", share=1.0, priority=7, data="none", purpose="newsroom drafts"),
    Customer(name="nordbank", policy="eea",
             markets="bergen copenhagen gothenburg helsinki oslo riga stockholm tallinn vilnius",
             services="extract review", share=1.0, priority=3, data="financial",
             purpose="document checks"),
    Customer(name="norsk-etat", policy="no-only", markets="bergen oslo", services="extract quick",
             share=0.7, priority=1, data="personal", purpose="citizen services", protected=True),
    Customer(name="panshop", policy="gdpr-adequate",
             markets="amsterdam barcelona berlin birmingham brussels budapest copenhagen lisbon "
             "london lyon madrid marseille milan oslo paris prague rome stockholm warsaw zurich",
             services="chat translate", share=0.5, priority=5, data="personal",
             purpose="shopping help"),
    Customer(name="research-net", policy="eea",
             markets="amsterdam berlin copenhagen munich paris rotterdam stockholm vienna",
             services="reason review", share=1.0, priority=8, data="none", purpose="research"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Habit:
    """How a service is used: requests per million people, request lengths, targets."""

    rate_per_million: float
    lengths: str
    ttft_ms: int
    tpot_ms: int
    quality_floor: float | None = None


HABITS = {
    "agent": Habit(rate_per_million=2.4, lengths="mooncake", ttft_ms=1_500, tpot_ms=100),
    "assistant": Habit(rate_per_million=6, lengths="m-large", ttft_ms=1_500, tpot_ms=100),
    "chat": Habit(rate_per_million=5, lengths="azure-conv", ttft_ms=1_500, tpot_ms=100),
    "code": Habit(rate_per_million=16, lengths="azure-code", ttft_ms=800, tpot_ms=100),
    "draft": Habit(rate_per_million=12, lengths="azure-conv", ttft_ms=1_500, tpot_ms=100),
    "extract": Habit(rate_per_million=30, lengths="m-mid", ttft_ms=2_000, tpot_ms=120),
    "quick": Habit(rate_per_million=12, lengths="azure-conv", ttft_ms=500, tpot_ms=90),
    "reason": Habit(rate_per_million=0.6, lengths="mooncake", ttft_ms=4_000, tpot_ms=100),
    "review": Habit(rate_per_million=8, lengths="m-large", ttft_ms=1_500, tpot_ms=100),
    "summarise": Habit(
        rate_per_million=5, lengths="m-large", ttft_ms=2_500, tpot_ms=110, quality_floor=0.85
    ),
    "translate": Habit(rate_per_million=8, lengths="azure-conv", ttft_ms=2_000, tpot_ms=120),
}


def _city(tables: Tables, market: str) -> Row:
    return tables.one("cities/europe_cities_100k.csv", name=_CITIES[market])


def markets(tables: Tables) -> Iterator[Document]:
    """One Market document per city, with its nearest campuses and all of its own country."""
    places = {campus.site: position(tables, campus) for campus in CAMPUSES}
    country = {campus.site: campus.country for campus in CAMPUSES}
    for market in sorted(_CITIES):
        city = _city(tables, market)
        here = (float(city["latitude"]), float(city["longitude"]))
        near = sorted(places, key=lambda site: (distance_km(here, places[site]), site))
        chosen = near[:ACCESSES] + [s for s in near[ACCESSES:] if country[s] == city["countrycode"]]
        yield (
            "Market",
            market,
            {
                "country": city["countrycode"],
                "location": {"latitude": here[0], "longitude": here[1]},
                "accesses": [
                    {
                        "site": site,
                        "rtt": f"{LAST_MILE_MS + estimated_rtt_ms(here, places[site]):.1f} ms",
                    }
                    for site in chosen
                ],
                "source": "place: GeoNames; RTT is an estimate from distance, 4 ms last mile",
            },
        )


def policies(tables: Tables) -> Iterator[Document]:
    """One ResidencyPolicy document per residency class in use."""
    source = "residency_tags: EU, EEA and adequacy lists as of January 2026"
    for name, tag, mechanism in (
        ("ch-only", "CH_ONLY", "contract"),
        ("de-only", "DE_ONLY", "contract"),
        ("eea", "EEA", ""),
        ("eu-strict", "EU_STRICT", "contract"),
        ("fr-only", "FR_ONLY", "contract"),
        ("gdpr-adequate", "GDPR_ADEQUATE", "adequacy"),
        ("uk-only", "UK_ONLY", "contract"),
    ):
        row = tables.one("residency/residency_tags.csv", tag=tag)
        yield "ResidencyPolicy", name, _policy(row["allowed_iso2"].split(), mechanism, source)
    hds = "French law asks certified hosts for health data (HDS); kept in France by contract"
    yield "ResidencyPolicy", "fr-hds", {**_policy(["FR"], "contract", hds), "requiredTags": ["hds"]}
    yield "ResidencyPolicy", "no-only", _policy(["NO"], "contract", "a contractual demand")
    anywhere = {"processingCountries": "any", "transitCountries": "any"}
    yield "ResidencyPolicy", "none", {**anywhere, "source": "no residency constraint"}


def _policy(countries: list[str], mechanism: str, source: str) -> dict[str, Any]:
    return {
        "processingCountries": sorted(countries),
        "transferMechanism": mechanism or None,
        "source": source,
    }


def tenants() -> Iterator[Document]:
    """One Tenant document per customer."""
    for one in CUSTOMERS:
        yield (
            "Tenant",
            one.name,
            {
                "residencyPolicy": one.policy,
                "legalName": f"{one.name.replace('-', ' ').title()} (made up)",
                "purpose": one.purpose,
                "dataCategory": one.data,
            },
        )


def classes(tables: Tables) -> Iterator[Document]:
    """One TrafficClass document per (service, market, tenant)."""
    profile = tables.daily_profile()
    for one in CUSTOMERS:
        for service in one.services.split():
            for market in one.markets.split():
                name = f"{service}/{market}/{one.name}"
                yield "TrafficClass", name, _class(tables, one, service, market, profile)


def _class(
    tables: Tables, one: Customer, service: str, market: str, profile: list[float]
) -> dict[str, Any]:
    habit, city = HABITS[service], _city(tables, market)
    given, made = _lengths(tables, habit.lengths)
    mean_rps = habit.rate_per_million * one.share * int(city["population"]) / 1e6
    offset = _UTC_OFFSET.get(city["countrycode"], 1)
    rates = [mean_rps * profile[(hour + offset) % HOURS] for hour in range(HOURS)]
    return {
        "market": market,
        "service": service,
        "tenant": one.name,
        "slo": {"ttft": f"{habit.ttft_ms} ms", "tpot": f"{habit.tpot_ms} ms"},
        "rate": [f"{rate:.3g} req/s" for rate in rates],
        "inputTokens": given,
        "outputTokens": made,
        "bytesPerRequest": f"{(given * 5 + made * 200) / 1000:.1f} kB",
        "priority": one.priority,
        "protected": True if one.protected else None,
        "qualityFloor": habit.quality_floor,
        "source": f"estimate: {habit.rate_per_million:g} req/s per million people x {one.share:g}; "
        f"day's shape ServeGen m-small; lengths {habit.lengths}",
    }


def _lengths(tables: Tables, name: str) -> tuple[int, int]:
    return tables.client_lengths(name) if name.startswith("m-") else tables.mean_lengths(name)


def plan_policy() -> Iterator[Document]:
    """The one PlanPolicy document."""
    yield (
        "PlanPolicy",
        "europe",
        {
            "utilisationCeiling": "80 %",
            "shedPrice": "$50/Mtok",
            "carbonPrice": "$70/t",
            "migrationPrice": "$0.02/GiB",
            "migrationHorizon": "24 h",
            "queueingAtCeiling": "50 ms",
            "gapLimit": "3 %",
            "timeLimit": "300 s",
            "source": "carbon: near the mean EU allowance price of 2024; the rest are estimates",
        },
    )
