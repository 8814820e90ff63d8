"""The campuses of the example and what was decided about them by hand.

Each stands where a public cloud region stands, so that round-trip times between them are published.
Which accelerators stand where, how many, and who operates them is made up.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Campus:
    """One campus. `azure` / `gcp` name the regions whose figures it takes, `aws` whose prices."""

    site: str
    city: str
    country: str
    zone: str
    azure: str = ""
    gcp: str = ""
    aws: str = "eu-central-1"
    pue: float
    pue_source: str = "PUE is an estimate by climate"
    tags: tuple[str, ...] = ("iso27001",)
    pools: tuple[tuple[str, int, str], ...]
    ppa: str = ""
    solar: bool = False


_SE_PUE = "PUE 1.16: design figure of Microsoft's Sweden data centres (local.microsoft.com, 2022)"
_IE_PUE = "PUE 1.22: 2021 mean of Microsoft's Ireland data centres (local.microsoft.com, 2022)"
_HDS = ("hds", "iso27001")

# pools: accelerator, count, terms ("owned", or the provider whose rent is paid)
CAMPUSES = (
    Campus(site="ams-1", city="Amsterdam", country="NL", zone="NL", azure="West Europe",
           gcp="europe-west4", pue=1.2, pools=(("h100", 12, "owned"), ("l40s", 12, "nebius"))),
    Campus(site="bre-1", city="Bremen", country="DE", zone="DE", azure="Germany North", pue=1.25,
           tags=("c5", "iso27001"), pools=(("h100", 8, "owned"), ("rtx-6000-ada", 8, "owned"))),
    Campus(site="bru-1", city="St. Ghislain", country="BE", zone="BE", gcp="europe-west1", pue=1.2,
           pools=(("mi300x", 8, "owned"), ("l4", 16, "aws"))),
    Campus(site="dub-1", city="Dublin", country="IE", zone="IE", azure="North Europe",
           aws="eu-west-1", pue=1.22, pue_source=_IE_PUE,
           pools=(("h100", 8, "owned"), ("l4", 16, "aws")), ppa="wind"),
    Campus(site="fra-1", city="Frankfurt", country="DE", zone="DE", azure="Germany West Central",
           gcp="europe-west3", pue=1.3, tags=("c5", "iso27001"),
           pools=(("h200", 12, "owned"), ("l4", 24, "aws"))),
    Campus(site="gva-1", city="Geneva", country="CH", zone="CH", azure="Switzerland West",
           aws="eu-central-2", pue=1.25, pools=(("a100-80gb", 8, "verda"), ("l40s", 8, "nebius")),
           ppa="hydro"),
    Campus(site="gvx-1", city="Gavle", country="SE", zone="SE-SE3", azure="Sweden Central",
           aws="eu-north-1", pue=1.16, pue_source=_SE_PUE,
           pools=(("h200", 16, "owned"), ("a100-80gb", 16, "verda")), ppa="hydro"),
    Campus(site="ham-1", city="Hamina", country="FI", zone="FI", gcp="europe-north1",
           aws="eu-north-1", pue=1.12,
           pools=(("b200", 8, "owned"), ("rtx-6000-ada", 8, "verda")), ppa="wind"),
    Campus(site="lon-1", city="London", country="GB", zone="GB", azure="UK South",
           gcp="europe-west2", aws="eu-west-2", pue=1.3,
           pools=(("h100", 16, "owned"), ("l4", 16, "aws"))),
    Campus(site="mad-1", city="Madrid", country="ES", zone="ES", gcp="europe-southwest1",
           aws="eu-south-2", pue=1.35, pools=(("h200", 8, "owned"), ("l4", 16, "aws")),
           solar=True),
    Campus(site="man-1", city="Manchester", country="GB", zone="GB", azure="UK West",
           aws="eu-west-2", pue=1.25, pools=(("a100-80gb", 16, "verda"), ("l40s", 8, "nebius"))),
    Campus(site="mil-1", city="Milan", country="IT", zone="IT-NO", azure="Italy North",
           gcp="europe-west8", aws="eu-south-1", pue=1.35,
           pools=(("mi300x", 4, "owned"), ("l40s", 12, "nebius")), solar=True),
    Campus(site="mrs-1", city="Marseille", country="FR", zone="FR", azure="France South",
           aws="eu-west-3", pue=1.3, tags=_HDS, pools=(("h100", 8, "owned"), ("l4", 12, "aws")),
           solar=True),
    Campus(site="osl-1", city="Oslo", country="NO", zone="NO-NO1", azure="Norway East",
           aws="eu-north-1", pue=1.15, pools=(("h100", 16, "owned"), ("l40s", 8, "nebius")),
           ppa="hydro"),
    Campus(site="par-1", city="Paris", country="FR", zone="FR", azure="France Central",
           gcp="europe-west9", aws="eu-west-3", pue=1.25, tags=_HDS,
           pools=(("b200", 4, "owned"), ("h100", 8, "owned"))),
    Campus(site="svg-1", city="Stavanger", country="NO", zone="NO-NO2", azure="Norway West",
           aws="eu-north-1", pue=1.12, pools=(("mi300x", 8, "owned"), ("h100", 8, "owned")),
           ppa="hydro"),
    Campus(site="waw-1", city="Warsaw", country="PL", zone="PL", azure="Poland Central",
           gcp="europe-central2", pue=1.3,
           pools=(("a100-80gb", 16, "verda"), ("rtx-6000-ada", 12, "owned"))),
    Campus(site="zrh-1", city="Zurich", country="CH", zone="CH", azure="Switzerland North",
           gcp="europe-west6", aws="eu-central-2", pue=1.25,
           pools=(("h100", 12, "owned"), ("l4", 12, "aws")), ppa="hydro"),
)  # fmt: skip

ACCELERATORS = {
    "a100-80gb": "A100 SXM 80GB",
    "b200": "B200",
    "h100": "H100 SXM",
    "h200": "H200 SXM",
    "l4": "L4",
    "l40s": "L40S",
    "mi300x": "MI300X",
    "rtx-6000-ada": "RTX 6000 Ada",
}
"""Names here -> rows of specs/accelerators.csv."""

RENTED = {"a100-80gb": "A100-80GB", "l4": "L4", "l40s": "L40S", "rtx-6000-ada": "RTX 6000 Ada"}
"""Names here -> names in the rental price tables."""

HOST_W = 80
"""Draw of the host per accelerator, cooling excluded (estimate)."""

# Links between campuses; the countries between the ends follow geography, not a cable map.
LINKS = (
    ("ams-1", "bru-1", ""), ("ams-1", "fra-1", ""), ("ams-1", "lon-1", ""),
    ("ams-1", "par-1", "BE"), ("ams-1", "osl-1", "DE DK SE"), ("ams-1", "bre-1", ""),
    ("ams-1", "dub-1", "GB"),
    ("bre-1", "fra-1", ""), ("bre-1", "gvx-1", "DK"), ("bre-1", "waw-1", ""),
    ("bru-1", "lon-1", "FR"), ("bru-1", "par-1", ""), ("bru-1", "fra-1", ""),
    ("dub-1", "lon-1", ""), ("dub-1", "man-1", ""), ("dub-1", "par-1", ""),
    ("fra-1", "ham-1", ""), ("fra-1", "mil-1", "AT"), ("fra-1", "par-1", ""),
    ("fra-1", "waw-1", ""), ("fra-1", "zrh-1", ""), ("gva-1", "mil-1", ""), ("gva-1", "mrs-1", ""),
    ("gva-1", "par-1", ""), ("gva-1", "zrh-1", ""), ("gvx-1", "osl-1", ""), ("gvx-1", "ham-1", ""),
    ("ham-1", "waw-1", "EE LT LV"), ("lon-1", "man-1", ""), ("lon-1", "par-1", ""),
    ("lon-1", "svg-1", ""), ("mad-1", "mil-1", "FR"), ("mad-1", "par-1", ""),
    ("mad-1", "mrs-1", ""), ("mil-1", "mrs-1", ""), ("mil-1", "zrh-1", ""), ("mrs-1", "par-1", ""),
    ("osl-1", "svg-1", ""), ("osl-1", "bre-1", "DK SE"),
)  # fmt: skip
