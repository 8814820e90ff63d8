"""One name per accelerator, model and precision, whatever a table calls it.

Decides which of the tables' spellings mean the same thing. A name nobody listed keeps its own
spelling in identifier form, so a user's own hardware and models import without a change here.
"""

from __future__ import annotations

import re

_ACCELERATORS = {
    "a100": "a100-80gb",
    "a100-sxm": "a100-80gb",
    "a100-80gb": "a100-80gb",
    "a10g": "a10g",
    "amd-mi250-gpu": "mi250-gcd",
    "amd-mi300x-gpu": "mi300x",
    "apple-m1": "apple-m1",
    "google-tpu-v5e": "tpu-v5e",
    "google-tpu-v6e": "tpu-v6e",
    "h100-80gb": "h100",
    "h100-80gb-pcap": "h100-capped",
    "h100-sxm": "h100",
    "habana-gaudi2": "gaudi2",
    "huawei-ascend-910b2": "ascend-910b2",
    "huawei-ascend-ascend910": "ascend-910c-die",
    "intel-max-1550": "max-1550",
    "intel-pvc-gpu": "max-1550",
    "jetson-orin-nano-super-8gb": "orin-nano-super",
    "mtt-s4000": "mtt-s4000",
    "nvidia-a100-gpu": "a100-40gb",
    "nvidia-a100-sxm4-40gb": "a100-40gb",
    "nvidia-a100-sxm4-80gb": "a100-80gb",
    "nvidia-a800-sxm4-80gb": "a800-80gb",
    "nvidia-geforce-rtx-3090": "rtx-3090",
    "nvidia-geforce-rtx-4090": "rtx-4090",
    "nvidia-geforce-rtx-4090-d": "rtx-4090-d",
    "nvidia-geforce-rtx-5090": "rtx-5090",
    "nvidia-gh200-gpu": "gh200",
    "nvidia-h100-80gb-hbm3": "h100",
    "nvidia-h100-gpu": "h100",
    "nvidia-h20-3e": "h20-141gb",
    "nvidia-h200": "h200",
    "nvidia-l4": "l4",
    "nvidia-rtx-4000-ada-generation": "rtx-4000-ada",
    "nvidia-rtx-6000-ada-generation": "rtx-6000-ada",
    "nvidia-rtx-a6000": "rtx-a6000",
    "rtx-6000-pro-blackwell-se": "rtx-pro-6000",
    "sambanova-sn40l": "sn40l",
    "tesla-t4": "t4",
    "tesla-v100-pcie-32gb": "v100-pcie",
    "tesla-v100s-pcie-32gb": "v100s-pcie",
    "v100": "v100-16gb",
}
_MODELS = {
    "aquila-7b": "aquila-7b",
    "bloom-176b": "bloom-176b",
    "deepseek-r1-0528": "deepseek-v3",
    "deepseek-v3.1": "deepseek-v3",
    "gpt-j-6b": "gpt-j-6b",
    "llama-1-30b": "llama-30b",
    "llama-7b": "llama-2-7b",
    "llama-70b": "llama-2-70b",
    "llama-2-7b-hf": "llama-2-7b",
    "llama-2-70b-hf": "llama-2-70b",
    "llama1-30b": "llama-30b",
    "llama2-70b": "llama-2-70b",
    "llama-3.3-70b": "llama-3.1-70b",
    "meta-llama-3-70b": "llama-3.1-70b",
    "llama-3-70b": "llama-3.1-70b",
    "llama-3-8b": "llama-3.1-8b",
    "meta-llama-3-8b": "llama-3.1-8b",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "llama-4-maverick-17b-128e": "llama-4-maverick",
    "llama-4-scout-17b-16e": "llama-4-scout",
    "mixtral-8x7b-v0.1": "mixtral-8x7b",
    "nvidia-nemotron-nano-12b-v2": "nemotron-nano-12b",
    "nvidia-nemotron-nano-9b-v2": "nemotron-nano-9b",
    "phi-3.5-mini-3.8b": "phi-3-mini",
    "qwen2-72b": "qwen2.5-72b",
    "qwen2-7b": "qwen2.5-7b",
    "qwen3-coder-30b-a3b": "qwen3-30b-a3b",
    "qwen3-coder-480b-a35b": "qwen3-480b-a35b",
}
_DROPPED = (
    "-quantized", ".w4a16", ".w8a16", ".w8a8", "-fp8", "-instruct", "-thinking", "-2507", "-it",
    "-v0.1-hf",
)  # fmt: skip
_PRECISIONS = {
    "16-bit": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp16": "bf16",
    "fp4": "nvfp4",
    "int4": "w4a16",
}


def slug(text: str) -> str:
    """Identifier form: lower case, every run of other signs one hyphen."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def accelerator_name(text: str) -> str:
    """The house name of an accelerator."""
    plain = slug(text)
    return _ACCELERATORS.get(plain, plain)


def model_name(text: str) -> str:
    """The house name of a model: the architecture it has, without its publisher and tuning."""
    plain = slug(text.rsplit("/", 1)[-1])
    for part in _DROPPED:
        plain = plain.replace(part, "")
    return _MODELS.get(plain, plain)


def precision_name(text: str) -> str:
    """The house name of a precision; bf16 stands for every 16-bit format."""
    plain = slug(text)
    return _PRECISIONS.get(plain, plain)


def framework_name(text: str, *, year: str, version: str = "") -> str:
    """Engine, version where the table gives one, and year (``vllm-0.7-2026``).

    Speed belongs to a version, of which the first two numbers are kept; the year is what every
    table gives.
    """
    plain = slug(re.split(r"[\s(]", text.strip())[0] or "unknown")
    number = re.match(r"\d+\.\d+", version.strip())
    return "-".join([plain, *([number.group()] if number else []), year])
