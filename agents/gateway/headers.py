"""Names of the headers gateways use among themselves and towards clients."""

RESIDENCY = "x-hinterland-residency"
"""A client's wish for a stricter residency policy: the only one of these a client may send."""

TENANT = "x-hinterland-tenant"
SERVICE = "x-hinterland-service"
POLICY = "x-hinterland-policy"
INGRESS = "x-hinterland-ingress"
TRANSIT = "x-hinterland-transit"
IDEMPOTENCY = "idempotency-key"

INTERNAL = (TENANT, SERVICE, POLICY, INGRESS, TRANSIT)
"""Set by the ingress gateway alone; whatever a client sends under these names is dropped."""

SITE = "x-hinterland-site"
VARIANT = "x-hinterland-variant"


def transit_text(countries_by_site: dict[str, tuple[str, ...]]) -> str:
    """``site=DE+FR,other=CH``: what each site's lawful path crosses; sites without are left out."""
    return ",".join(
        f"{site}={'+'.join(countries)}"
        for site, countries in sorted(countries_by_site.items())
        if countries
    )


def transit_of(text: str, *, site_id: str) -> tuple[str, ...]:
    """Inverse of `transit_text` for one site; empty if the site is not named."""
    for part in text.split(","):
        site, _, countries = part.partition("=")
        if site == site_id and countries:
            return tuple(countries.split("+"))
    return ()
