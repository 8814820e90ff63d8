"""Fleets for benchmarks: the demo's made small and fast, tiers from public data, facility location.

Tiers and facility fleets are made by the Python API, seeded: the same seed and data, the same
problem.
"""

from benchmarks.fleets.demo import FIRST_PORT, fast_demo, many_sites
from benchmarks.fleets.facility import CFLP_INSTANCES, cflp, facility_location
from benchmarks.fleets.tiers import TIERS, tier

__all__ = [
    "CFLP_INSTANCES",
    "FIRST_PORT",
    "TIERS",
    "cflp",
    "facility_location",
    "fast_demo",
    "many_sites",
    "tier",
]
