"""The house rules a machine can check: bans, sizes, package origin, what a commit may not name."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sites", "optimizer", "agents", "scheduler")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# What reaches the world, and the files that are its home.
BANNED_CALLS = {
    "time.time": {"sites/clock.py"},
    "time.time_ns": {"sites/clock.py"},
    "time.monotonic": {"sites/clock.py"},
    "time.monotonic_ns": {"sites/clock.py"},
    "time.sleep": {"sites/clock.py"},
    "time.perf_counter": {"sites/clock.py"},
    "asyncio.sleep": {"sites/clock.py"},
    "datetime.now": set(),
    "datetime.datetime.now": set(),
    "datetime.utcnow": set(),
    "uuid.uuid4": set(),
    "random.random": set(),
    "random.randint": set(),
    "random.choice": set(),
    "random.shuffle": set(),
    "random.uniform": set(),
}
# Environment variables are read where a process starts.
ENVIRON_HOMES = {
    "agents/main.py",
    "agents/processes.py",
    "scheduler/main.py",
    "scheduler/ray_hubs.py",
}
# One library, one place: who may import what, by the start of the file's name.
LIBRARY_HOMES = {
    "ray": ("sites/actor.py", "scheduler/ray_host.py"),
    "grpc": ("agents/uplink.py", "scheduler/front_door.py"),
    "pyomo": ("optimizer/milp/",),
    "highspy": ("optimizer/milp/",),
    "networkx": ("optimizer/backbone.py",),
    "yaml": ("sites/fleet_file/",),
    "pydantic": ("sites/fleet_file/",),
    "pint": ("sites/fleet_file/",),
    "rfc8785": ("sites/digest.py",),
    "fastapi": ("scheduler/api/", "scheduler/server.py"),
    "openai": ("scheduler/demo/clients.py",),
    "psutil": ("agents/processes.py", "scheduler/ray_host.py"),
    "sqlite3": ("agents/spool.py", "scheduler/ledger/"),
}


def sources() -> Iterator[Path]:
    """Every Python file of the four packages that people write."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "agents/v1" not in path.as_posix():
                yield path


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute chain, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def test_the_world_comes_in_through_the_constructor() -> None:
    faults = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            called = dotted(node.func) if isinstance(node, ast.Call) else ""
            if called in BANNED_CALLS and name_of(path) not in BANNED_CALLS[called]:
                faults.append(f"{name_of(path)}:{node.lineno}: {called}")
            is_environ = isinstance(node, ast.Attribute) and dotted(node) == "os.environ"
            if is_environ and name_of(path) not in ENVIRON_HOMES:
                faults.append(f"{name_of(path)}:{node.lineno}: os.environ")
    assert not faults, "\n".join(faults)


def test_every_library_has_one_home() -> None:
    faults = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for library in {name.partition(".")[0] for name in names} & LIBRARY_HOMES.keys():
                if not name_of(path).startswith(LIBRARY_HOMES[library]):
                    faults.append(f"{name_of(path)}: imports {library}")
    assert not faults, "\n".join(faults)


def test_files_and_functions_stay_small() -> None:
    faults = []
    for path in sources():
        text = path.read_text()
        lines = text.count("\n")
        if lines > FILE_LINES_MAX:
            faults.append(f"{name_of(path)}: {lines} lines, limit {FILE_LINES_MAX}; split it")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    faults.append(
                        f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines, "
                        f"limit {FUNCTION_LINES_MAX}"
                    )
    assert not faults, "\n".join(faults)


def test_every_module_says_what_it_decides() -> None:
    mute = [name_of(p) for p in sources() if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not mute, f"no module docstring: {', '.join(mute)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_this_checkout(package: str) -> None:
    """`agents` and `scheduler` are also names of published libraries."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / package / "__init__.py"


def test_proto_is_no_python_package() -> None:
    assert not list((ROOT / "proto").rglob("__init__.py"))


def test_generated_code_is_current(tmp_path: Path) -> None:
    """`make proto` would change nothing."""
    protos = sorted((ROOT / "proto").rglob("*.proto"))
    assert protos, "no .proto file"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto")]
    outs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *outs, *map(str, protos)], check=True, timeout=60)
    fresh = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert fresh, "nothing generated"
    for one in fresh:
        assert (ROOT / one).read_bytes() == (tmp_path / one).read_bytes(), f"{one} is out of date"


def test_the_cli_starts_without_the_heavy_libraries() -> None:
    """Ray, Pyomo, gRPC and FastAPI cost seconds; `--help` must not pay for them."""
    heavy = ("ray", "pyomo", "highspy", "grpc", "fastapi", "pydantic", "networkx", "numpy")
    code = (
        "import sys\nfrom scheduler.cli import main\n"
        "sys.argv = ['hinterland', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', [m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "HEAVY []" in done.stdout, done.stdout[-400:]
    assert "Usage" in done.stdout


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
    ).stdout
    words = [b"/" + b"work/", b"bash" + b"_jobs", b"pypi" + b".org", b"registry." + b"npmjs"]
    faults = []
    for raw in filter(None, listed.split(b"\0")):
        path = ROOT / raw.decode()
        if path.is_file():
            content = path.read_bytes()
            faults += [f"{raw.decode()}: {w.decode()}" for w in words if w in content]
    assert not faults, "\n".join(faults)


def test_no_dependency_is_linked_under_a_copyleft_licence() -> None:
    """GPL, AGPL and BUSL code is not linked in (LGPL and MPL are)."""
    faults = []
    lock = (ROOT / "requirements.lock").read_text()
    locked = {line.split("==")[0] for line in lock.splitlines() if "==" in line and line[0] != " "}
    for dist in metadata.distributions():
        name = dist.metadata["Name"]
        if name.lower().replace("_", "-") not in locked:
            continue
        said = " ".join(
            [
                dist.metadata.get("License-Expression") or "",
                (dist.metadata.get("License") or "")[:80],
            ]
            + [c for c in dist.metadata.get_all("Classifier") or [] if c.startswith("License")]
        )
        words = said.replace("LGPL", "").replace("Lesser General Public", "")
        if any(w in words for w in ("GPL", "General Public License", "BUSL", "Business Source")):
            faults.append(f"{name}: {said[:120]}")
    assert not faults, "\n".join(faults)
