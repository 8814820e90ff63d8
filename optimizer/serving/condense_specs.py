"""Specifications condensed from the public tables, and those no table holds.

Decides which rows of the specification tables stand for which accelerator and model. Figures
entered by hand say so in their source and deserve a check before they carry weight.
"""

from __future__ import annotations

from typing import Any

from optimizer.serving.names import model_name
from optimizer.serving.table import Row

_HAND = "entered by hand from the vendor's figures; no stored source"
_FAMILY = {
    "ada": "L40S,L4,RTX 6000 Ada,RTX 4090",
    "amd": "MI300X,MI325X,MI355X",
    "ampere": "A100 SXM 80GB,A100 SXM 40GB,A10G,RTX A6000,RTX 3090",
    "ascend": "Ascend 910B2",
    "blackwell": "B200,GB200,B300,RTX PRO 6000 Blackwell SE",
    "edge": "Jetson AGX Orin 64GB,Jetson Orin Nano Super 8GB",
    "gaudi": "Gaudi2,Gaudi3",
    "hopper": "H200 SXM,H100 SXM,H100 PCIe,H20",
    "tpu": "TPU v5e,TPU v5p,TPU v6e",
    "trainium": "Inferentia2,Trainium1,Trainium2",
    "volta": "T4,V100S PCIe 32GB,V100 SXM2 32GB",
}
_IDS = {
    "H200 SXM": "h200",
    "H100 SXM": "h100",
    "H100 PCIe": "h100-pcie",
    "H20": "h20",
    "A100 SXM 80GB": "a100-80gb",
    "A100 SXM 40GB": "a100-40gb",
    "RTX PRO 6000 Blackwell SE": "rtx-pro-6000",
    "V100S PCIe 32GB": "v100s-pcie",
    "V100 SXM2 32GB": "v100-32gb",
    "Jetson AGX Orin 64GB": "agx-orin",
    "Jetson Orin Nano Super 8GB": "orin-nano-super",
}
_PCIE_GB_S = 32.0
_LINK_GB_S = {
    "a100": 300.0, "a800": 200.0, "ascend": 196.0, "b": 900.0, "gaudi": 300.0, "gb": 900.0,
    "gh": 450.0, "h": 450.0, "mi": 300.0, "tpu": 200.0, "trainium": 192.0, "v100-": 150.0,
    "max": 200.0, "sn40l": 64.0, "inferentia": 96.0,
}  # fmt: skip
"""Link to the neighbours, one way, by the longest fitting start of the name; else PCIe 4.0 x16."""

_FLOP_PER_BYTE = 200.0
"""Assumed ratio of 16-bit rate to bandwidth where a table leaves the rate blank."""

_TDP_UNKNOWN_W = 300.0


def _hand(
    accelerator: str, family: str, figures: tuple[float, float, float, float, float], note: str = ""
) -> dict[str, Any]:
    memory, bandwidth, bf16, eight, tdp = figures
    return {
        "accelerator": accelerator,
        "family": family,
        "memory_gb": memory,
        "bandwidth_gb_s": bandwidth,
        "bf16_tflops": bf16,
        "eight_bit_tflops": eight,
        "tdp_w": tdp,
        "source": note or _HAND,
    }


_EPOCH = "Epoch AI Machine Learning Hardware"
_MORE_ACCELERATORS = (
    _hand("a800-80gb", "ampere", (80, 2040, 311.8, 624, 400), f"{_EPOCH}: A800 SXM"),
    _hand("apple-m1", "edge", (16, 68, 5.2, 0, 20)),
    _hand("ascend-910c-die", "ascend", (64, 1600, 400, 0, 350),
          f"{_EPOCH}: half an Ascend 910C, the reading of AccelMark's 'Ascend910' with 64 GB"),
    _hand("gh200", "hopper", (96, 4000, 989.5, 1979, 700),
          f"{_EPOCH}: GH200; 96 GB and 4.0 TB/s {_HAND}"),
    _hand("h100-capped", "hopper", (80, 3350, 989.4, 1978, 350),
          "H100 SXM under a power cap, assumed half"),
    _hand("h20-141gb", "hopper", (141, 4800, 148, 296, 500),
          f"{_EPOCH}: HGX H20; memory of the 141 GB version {_HAND}"),
    _hand("max-1550", "intel", (128, 3280, 839, 0, 600),
          f"{_EPOCH}: Max 1550; 16-bit rate {_HAND}"),
    _hand("mi250-gcd", "amd", (64, 1638, 181, 181, 280),
          f"half an MI250 (one of its two dies), {_HAND}"),
    _hand("mtt-s4000", "mtt", (48, 768, 100, 200, 450), f"{_EPOCH}: MTT S4000"),
    _hand("rtx-4000-ada", "ada", (20, 360, 107, 214, 130)),
    _hand("rtx-4090-d", "ada", (24, 1008, 294, 588, 425)),
    _hand("rtx-5090", "blackwell-rtx", (32, 1792, 419, 838, 575)),
    _hand("sn40l", "sn", (64, 1600, 638, 0, 600)),
    _hand("v100-16gb", "volta", (16, 897, 125, 0, 300), f"{_EPOCH}: Tesla V100 SXM2"),
    _hand("v100-pcie", "volta", (32, 897, 112, 0, 250), f"{_EPOCH}: Tesla V100 PCIe 32 GB"),
)  # fmt: skip

_CONFIG = "published config.json, entered by hand; no stored source"
_MORE_MODELS: dict[str, tuple[float, float, int, int, float, int, int, int]] = {
    # total_b, active_b, layers, hidden, kv elements per token, context, experts, per token
    "aquila-7b": (7.3, 7.3, 32, 4096, 262144, 2048, 1, 1),
    "bloom-176b": (176.2, 176.2, 70, 14336, 2007040, 2048, 1, 1),
    "bloom-7b1": (7.07, 7.07, 30, 4096, 245760, 2048, 1, 1),
    "decilm-7b": (7.04, 7.04, 32, 4096, 17152, 8192, 1, 1),
    "gpt-j-6b": (6.05, 6.05, 28, 4096, 229376, 2048, 1, 1),
    "llama-2-70b": (68.98, 68.98, 80, 8192, 163840, 4096, 1, 1),
    "llama-2-7b": (6.74, 6.74, 32, 4096, 262144, 4096, 1, 1),
    "llama-3.2-11b-vision": (9.78, 9.78, 40, 4096, 65536, 131072, 1, 1),
    "llama-30b": (32.53, 32.53, 60, 6656, 798720, 2048, 1, 1),
    "llama-4-maverick": (400.7, 17.2, 48, 5120, 98304, 1048576, 128, 1),
    "llama-4-scout": (108.6, 17.2, 48, 5120, 98304, 10485760, 16, 1),
    "nemotron-nano-12b": (12.3, 12.3, 62, 5120, 12288, 131072, 1, 1),
    "nemotron-nano-9b": (8.89, 8.89, 56, 4480, 8192, 131072, 1, 1),
    "opt-6.7b": (6.66, 6.66, 32, 4096, 262144, 2048, 1, 1),
    "qwen1.5-7b": (7.72, 7.72, 32, 4096, 262144, 32768, 1, 1),
    "qwen2.5-0.5b": (0.494, 0.494, 24, 896, 6144, 32768, 1, 1),
    "qwen3-480b-a35b": (480.2, 35.5, 62, 6144, 126976, 262144, 160, 8),
}


def _link(accelerator: str) -> float:
    fits = [start for start in _LINK_GB_S if accelerator.startswith(start)]
    pcie = accelerator.endswith("pcie") or accelerator.startswith("h100-pcie")
    return _PCIE_GB_S if pcie or not fits else _LINK_GB_S[max(fits, key=len)]


def accelerators(table: list[Row]) -> list[dict[str, Any]]:
    """Specifications of every accelerator, sorted by name."""
    families = {name: fam for fam, names in _FAMILY.items() for name in names.split(",")}
    found = list(_MORE_ACCELERATORS)
    for row in table:
        name = row.text("accelerator")
        if name not in families:  # Groq keeps models in on-chip memory: no roofline of ours fits
            continue
        bandwidth = row.number("mem_bw_gb_s")
        bf16, eight = row.maybe("bf16_tflops"), row.maybe("fp8_tflops") or row.maybe("int8_tops")
        note = row.text("source")
        if bf16 is None:
            bf16 = bandwidth * _FLOP_PER_BYTE / 1e3 if eight is None else eight / 2
            note += "; 16-bit rate assumed"
        tdp = row.maybe("tdp_w")
        note += "; rated draw assumed" if tdp is None else ""
        accelerator = _IDS.get(name, name.lower().replace(" ", "-"))
        memory = row.number("mem_gb")
        figures = (memory, bandwidth, bf16, max(eight or 0.0, 0.0), tdp or _TDP_UNKNOWN_W)
        found.append(_hand(accelerator, families[name], figures, note))
    return sorted(
        ({**one, "link_gb_s": _link(one["accelerator"])} for one in found),
        key=lambda one: str(one["accelerator"]),
    )


def architectures(table: list[Row]) -> list[dict[str, Any]]:
    """Shapes of every model, sorted by name."""
    found = [_architecture(name, figures, source=_CONFIG) for name, figures in _MORE_MODELS.items()]
    for row in table:
        experts, per_token = row.maybe("experts"), row.maybe("experts_per_token")
        figures = (
            row.number("params_b_computed"),
            row.number("active_params_b_computed"),
            row.count("layers"),
            int(row.number("hidden")),
            row.number("kv_elements_per_token"),
            int(row.number("context")),
            int(experts or 1),
            int(per_token or 1),
        )
        found.append(_architecture(model_name(row.text("model")), figures, row.text("source")))
    return sorted(found, key=lambda one: str(one["model"]))


def _architecture(
    model: str, figures: tuple[float, float, int, int, float, int, int, int], source: str
) -> dict[str, Any]:
    names = ("parameters_b", "active_b", "layers", "hidden", "kv_elements_per_token",
             "context_tokens", "experts", "experts_per_token")  # fmt: skip
    return {"model": model, **dict(zip(names, figures, strict=True)), "source": source}
