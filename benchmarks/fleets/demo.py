"""Small fleets for end-to-end benchmarks, written as ordinary fleet files from the demo's."""

from __future__ import annotations

from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "demo"

# A serving point fast enough that the gateway, not the model, is what a benchmark sees.
_FAST = {
    "decode: 70 tok/s": "decode: 20000 tok/s",
    "prefill: 140 tok/s": "prefill: 200000 tok/s",
    "ttft: 1100 ms": "ttft: 20 ms",
    "tpot: 40 ms": "tpot: 2 ms",
    "concurrency: 2": "concurrency: 64",
    # Warsaw need not answer.
    "    - {site: waw-1, variant: smollm2-135m-q4, fewest: 1}\n": "",
}
_SITE = """apiVersion: hinterland/v1
kind: Site
metadata: {{name: site-{n}}}
spec:
  country: {country}
  gateway: {{client: "127.0.0.1:{client}", peer: "127.0.0.1:{peer}"}}
  power:
    budget: 60 W
    pue: 1.2
    supplies:
      - {{name: grid, kind: grid, limit: 60 W, price: $0.09/kWh, carbon: 200 g/kWh}}
  pools:
    - {{name: cpu, accelerator: cpu-thread, count: 2, memory: 512 MiB, price: $0.045/h}}
"""
_COUNTRIES = ("LV", "PL", "SE", "DE", "FR", "NL")
FIRST_PORT = 21_000


def fast_demo(folder: Path) -> Path:
    """The demo fleet with a serving point a hundred times as fast; for simulated model servers."""
    target = folder / "fast"
    target.mkdir()
    for path in sorted(DEMO.glob("*.yaml")):
        text = path.read_text()
        if path.name == "models.yaml":
            for slow, fast in _FAST.items():
                assert slow in text, f"{path.name} no longer says {slow!r}"
                text = text.replace(slow, fast)
        (target / path.name).write_text(text)
    return target


def many_sites(folder: Path, count: int) -> Path:
    """`count` small sites in six countries and one market each knows; nothing is asked for."""
    target = folder / f"sites-{count}"
    target.mkdir()
    sites = [
        _SITE.format(
            n=n,
            country=_COUNTRIES[n % len(_COUNTRIES)],
            client=FIRST_PORT + 2 * n,
            peer=FIRST_PORT + 2 * n + 1,
        )
        for n in range(count)
    ]
    (target / "sites.yaml").write_text("---\n".join(sites))
    (target / "models.yaml").write_text(
        (DEMO / "models.yaml")
        .read_text()
        .partition("---\napiVersion: hinterland/v1\nkind: PlanPolicy")[0]
    )
    return target
