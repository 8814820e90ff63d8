"""The document kinds of a fleet file: which fields each has, of which type, dimension and meaning.

Decides the format and nothing else: field descriptions here are what `explain` prints and what
editors show. References between documents, and the facts made of them, are left to the builder.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from sites.fleet_file import quantities as q
from sites.fleet_file.fields import (
    Address,
    Bandwidth,
    BudgetByHour,
    CachePerToken,
    CarbonByHour,
    CarbonPerHour,
    CarbonPrice,
    Countries,
    Country,
    Data,
    DataPrice,
    Duration,
    EnergyPriceByHour,
    Fraction,
    HourlyPrice,
    Hours,
    Interruptions,
    Memory,
    MemoryPrice,
    Name,
    Number,
    Part,
    PositiveFraction,
    Power,
    PowerByHour,
    RequestsByHour,
    Seconds,
    SloDuration,
    Sourced,
    TokenPrice,
    TokenRate,
    Wait,
    about,
)

API_VERSION = "hinterland/v1"


class Metadata(Part):
    """How a document is known."""

    name: Name = about("Identifier, unique among documents of its kind; a-z 0-9 . _ / : @ + -")


class Location(Sourced):
    """A point on the map."""

    latitude: Number = about("Degrees north.", ge=-90, le=90)
    longitude: Number = about("Degrees east.", ge=-180, le=180)


class Gateway(Sourced):
    """Where a site's gateway listens."""

    client: Address = about("host:port for clients (OpenAI API).")
    peer: Address = about("host:port for other sites' gateways (mTLS).")


class Supply(Sourced):
    """One priced source of a site's power."""

    name: Name = about("Unique at the site.")
    kind: Literal["on_site", "ppa", "grid", "peak"] = about(
        "On-site generation, purchase agreement, grid, or grid beyond the contracted block (peak)."
    )
    limit: PowerByHour = about("Most that can be drawn; one value or 24.")
    price: EnergyPriceByHour = about("Price of energy; one value or 24; may be negative.")
    carbon: CarbonByHour = about("Carbon intensity; one value or 24.", (0.0,))


class PowerSpec(Sourced):
    """What a site may draw and where its power comes from."""

    budget: BudgetByHour = about("Most the site may draw for inference, cooling included.")
    pue: Number = about("Power usage effectiveness: total draw over IT draw.", ge=1, le=10)
    supplies: list[Supply] = about("Sources of power; at least one.", min_length=1)


class Pool(Sourced):
    """Identical accelerators at one site."""

    name: Name = about("Unique at the site.")
    accelerator: Name = about("Type, as serving points name it.")
    count: int = about("How many.", ge=0, le=10_000_000)
    memory: Memory = about("Memory of one accelerator.")
    price: HourlyPrice = about("Per accelerator in use: wear if owned, rent otherwise.")
    ownership: Literal["owned", "rented", "spot"] = about("On what terms it is held.", "owned")
    interruption: Interruptions = about("How often a spot replica is taken away.", 0.0)

    @field_validator("interruption")
    @classmethod
    def _spot_only(cls, given: float, info: ValidationInfo) -> float:
        ownership = info.data.get("ownership", "spot")  # absent: its own fault is reported
        if given > 0 and ownership != "spot":
            raise q.refusal(f"a pool that is {ownership} is not interrupted; leave it out")
        return given


class SiteSpec(Sourced):
    """A campus: power, hardware, law."""

    country: Country = about("ISO 3166-1 alpha-2 code.")
    region: str = about("Free text.", "", max_length=200)
    location: Location | None = about("Where it stands.", None)
    legal_entity: str = about("Who operates it, in law.", "", max_length=200)
    residency_tags: list[Name] = about("Certifications and contracts policies can ask for.", [])
    cordoned: bool = about("Receives nothing new.", False)
    fixed_price: HourlyPrice = about("Price of using the site at all.", 0.0)
    gateway: Gateway | None = about("Addresses of its gateway; needed to run it.", None)
    power: PowerSpec = about("Power budget, PUE and supplies.")
    pools: list[Pool] = about("Hardware.")


class LinkSpec(Sourced):
    """A backbone link between two sites, usable both ways."""

    between: list[Name] = about("The two sites.", min_length=2, max_length=2)
    rtt: Duration = about("Round-trip time.")
    bandwidth: Bandwidth = about("What inference may use, each way.")
    price: DataPrice = about("Price of data moved.", 0.0)
    transit_countries: list[Country] = about("Countries crossed besides the two ends.", [])


class Access(Sourced):
    """A site's gateway a market can enter at."""

    site: Name = about("The site.")
    rtt: Duration = about("Round-trip time from the market.")


class MarketSpec(Sourced):
    """A place where traffic is born."""

    country: Country = about("ISO 3166-1 alpha-2 code.")
    location: Location | None = about("Where it lies.", None)
    accesses: list[Access] = about("Sites it can enter at; at least one.", min_length=1)


class VariantSpec(Sourced):
    """One precision or quantisation of a model."""

    name: Name = about("Unique among the variants of all models.")
    precision: str = about("E.g. bf16, fp8, int4.", max_length=40)
    weights: Memory = about("What the weights take in accelerator memory.")
    cache_per_token: CachePerToken = about("Key-value cache of one token.")
    quality: Fraction = about("Score against the best unquantised model of the catalogue.")
    artifact: str = about("What the runtime loads.", "", max_length=500)
    artifact_sha256: str = about("Digest of the artifact.", "", pattern=r"^([0-9a-f]{64})?$")


class ServingPointSpec(Sourced):
    """What one replica of a variant does on so many accelerators of a type."""

    variant: Name = about("A variant of this model.")
    accelerator: Name = about("Accelerator type, as pools name it.")
    accelerators_per_replica: int = about("How many one replica takes.", 1, ge=1, le=4096)
    decode: TokenRate = about("Output tokens of the replica at its concurrency.")
    prefill: TokenRate | None = about("Input tokens; left out if decode includes them.", None)
    ttft: Duration = about("Time to first token at the percentile and concurrency.")
    tpot: Duration = about("Time per output token at the percentile and concurrency.")
    concurrency: int = about("Requests run at once.", ge=1, le=1_000_000)
    idle_power: Power = about("Draw of the whole replica when idle, cooling excluded.")
    full_power: Power = about("Draw of the whole replica at full use, cooling excluded.")
    memory: Memory = about("What it takes on each accelerator, cache included.")
    percentile: Number = about("Percentile of ttft and tpot.", 99.0, ge=1, le=100)
    start_time: Duration = about("From start to ready.", 0.0)
    estimated: bool = about("Nobody measured this pair.", False)


class ModelSpec(Sourced):
    """Weights as published, their variants, and what those do on which hardware."""

    parameters_b: Number = about("Parameters in billions.", gt=0)
    context_tokens: int = about("Longest context.", ge=1, le=1_000_000_000)
    license: str = about("Licence of the weights.", "", max_length=200)
    variants: list[VariantSpec] = about("At least one.", min_length=1)
    serving_points: list[ServingPointSpec] = about("Measured or estimated operating points.", [])


class ServiceSpec(Sourced):
    """What a client asks for by the name in its request's `model` field."""

    variants: list[Name] = about("Variants allowed to answer; at least one.", min_length=1)


class SloSpec(Sourced):
    """What a percentile of the requests must meet."""

    ttft: SloDuration = about("Time to first token.")
    tpot: SloDuration = about("Time per output token.")
    percentile: Number = about("Percentile.", 99.0, ge=1, le=100)
    over_mix: bool = about("The mean TTFT over all serving sites must meet it, not each.", False)


class TrafficClassSpec(Sourced):
    """Requests alike in market, service, tenant, residency, SLO and priority, and their rate."""

    market: Name = about("Where they are born.")
    service: Name = about("What they ask for.")
    tenant: Name = about("Whose they are.")
    residency_policy: Name | None = about("At least as strict as the tenant's (default).", None)
    slo: SloSpec = about("What they must meet.")
    rate: RequestsByHour = about("Demand; one value or 24.")
    input_tokens: Number = about("Mean per request.", ge=0)
    output_tokens: Number = about("Mean per request.", gt=0)
    bytes_per_request: Data = about("Moved over the network, answer included.", 0.0)
    priority: int = about("0 is shed last, 9 first.", 5, ge=0, le=9)
    protected: bool = about("Must survive the loss of one site.", False)
    quality_floor: Fraction = about("Lowest variant quality that may answer.", 0.0)
    mean_quality_floor: Fraction = about("Lowest mean quality of what is answered.", 0.0)
    spread_sites: int = about("Fewest serving sites.", 1, ge=1, le=1000)
    spread_zones: int = about("Fewest regions of serving sites.", 1, ge=1, le=1000)
    deferrable: Wait = about("How long requests may wait, in whole hours.", 0.0)
    context_tokens: Number = about("Longest request and answer; 0: as the mean.", 0.0, ge=0)


class ResidencyPolicySpec(Sourced):
    """Where data may be processed and which countries it may cross."""

    processing_countries: Countries = about("ISO codes, or any.")
    transit_countries: Countries = about("ISO codes besides the processing ones, or any.", [])
    required_tags: list[Name] = about("Residency tags a site must carry.", [])
    transfer_mechanism: str = about("Legal basis, e.g. adequacy.", "", max_length=200)


class TenantSpec(Sourced):
    """A customer."""

    residency_policy: Name = about("Holds unless a request asks for a stricter one.")
    legal_name: str = about("As in the contract.", "", max_length=200)
    purpose: str = about("Purpose of processing (GDPR Art. 30).", "", max_length=500)
    data_category: str = about("Category of data processed.", "", max_length=200)
    budget: HourlyPrice | None = about("Most its served traffic may cost; none if left out.", None)


class ReplicaBound(Sourced):
    """Fewest and most replicas of a variant at a site."""

    site: Name = about("The site.")
    variant: Name = about("The variant.")
    fewest: int = about("Floor.", 0, ge=0, le=1_000_000)
    most: int | None = about("Cap; left out means none.", None, ge=0, le=1_000_000)


class PlanPolicySpec(Sourced):
    """Prices, weights and limits plans are made under."""

    utilisation_ceiling: PositiveFraction = about("Part of a serving point's throughput used.", 0.8)
    shed_price: TokenPrice = about("Unserved output tokens at priority 9; x (10 - priority).", 50.0)
    carbon_price: CarbonPrice = about("Price of emissions.", 0.0)
    migration_price: MemoryPrice = about("Price of moving weights to start a replica.", 0.0)
    migration_horizon: Hours = about("Hours the migration price is spread over.", 24.0)
    queueing_at_ceiling: Duration = about("Waiting added to every time to first token.", 0.0)
    move_limit_replicas: int | None = about("Most starts plus stops in one plan.", None, ge=0)
    max_shed: Fraction | None = about("Most any class may be shed; left out: priced only.", None)
    carbon_cap: CarbonPerHour | None = about("Most emission; left out: priced only.", None)
    exposure_part: Fraction = about(
        "Part of the shed price that protected traffic pays if one loss would leave it unserved.",
        0.1,
    )
    replica_bounds: list[ReplicaBound] = about("Floors and caps.", [])
    gap_limit: Fraction = about("Relative gap the search may stop at.", 0.01)
    node_limit: int = about("Budget of the search, in nodes.", 100_000, ge=1, le=10**12)
    time_limit: Seconds = about("Outer abort of the search.", 300.0)
    seed: int = about("Seed of the search.", 0, ge=0, le=2**31 - 1)


class Document(Part):
    """One document; `spec` depends on the kind."""

    api_version: Literal["hinterland/v1"] = about("Version of the format.")
    metadata: Metadata = about("How the document is known.")


class Site(Document):
    kind: Literal["Site"] = about("A campus: power, hardware, law.")
    spec: SiteSpec = about("What it is.")


class Link(Document):
    kind: Literal["Link"] = about("A backbone link between two sites.")
    spec: LinkSpec = about("What it is.")


class Market(Document):
    kind: Literal["Market"] = about("A place where traffic is born.")
    spec: MarketSpec = about("What it is.")


class Model(Document):
    kind: Literal["Model"] = about("Weights, their variants and serving points.")
    spec: ModelSpec = about("What it is.")


class Service(Document):
    kind: Literal["Service"] = about("What clients ask for.")
    spec: ServiceSpec = about("What it is.")


class TrafficClass(Document):
    kind: Literal["TrafficClass"] = about("Requests alike, and their rate.")
    spec: TrafficClassSpec = about("What it is.")


class ResidencyPolicy(Document):
    kind: Literal["ResidencyPolicy"] = about("Where data may be processed and pass.")
    spec: ResidencyPolicySpec = about("What it is.")


class Tenant(Document):
    kind: Literal["Tenant"] = about("A customer.")
    spec: TenantSpec = about("What it is.")


class PlanPolicy(Document):
    kind: Literal["PlanPolicy"] = about("Prices, weights and limits of plans.")
    spec: PlanPolicySpec = about("What it is.")


KINDS: dict[str, type[Document]] = {
    one.__name__: one
    for one in (
        Site,
        Link,
        Market,
        Model,
        Service,
        TrafficClass,
        ResidencyPolicy,
        Tenant,
        PlanPolicy,
    )
}
