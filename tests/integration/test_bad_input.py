"""Bad input to a running fleet: one clear error each, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bad_input_stage import running_fleet

from agents.processes import package_env
from scheduler.demo.operator import Operator
from scheduler.plan_file import SavedPlan, read_plan, write_plan
from sites.digest import digest, to_plain

HUGE = 10**30


class Fleet:
    """The one running fleet, and what it looked like when a test began."""

    def __init__(self, operator: Operator, files: Path, folder: Path) -> None:
        self.operator = operator
        self.files = files
        self.folder = folder

    def standing(self) -> tuple[Any, ...]:
        """What bad input must leave as it was."""
        view = self.operator.view()
        ranks = tuple(
            (s.site_id, s.state, s.observation and s.observation.version) for s in view.sites
        )
        return view.state_serial, view.plan, view.problem, view.rollout_receipt_id, ranks

    def refused(self, *arguments: str, code: int) -> str:
        """Run a command that has to end with `code`, say why, and change nothing; returns why."""
        before = self.standing()
        done = self.operator.command(*arguments)
        text = done.stdout + done.stderr
        assert done.returncode == code, text
        assert "Traceback" not in text and "internal error" not in text
        assert self.standing() == before
        return text

    def api(self) -> httpx.Client:
        entry = json.loads((self.folder / "state" / "server" / "api.json").read_text())
        return httpx.Client(
            base_url=entry["url"],
            headers={"Authorization": f"Bearer {entry['token']}"},
            timeout=30,
            trust_env=False,
        )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("bad-input")
    with running_fleet(folder) as (operator, files):
        yield Fleet(operator, files, folder)


def saved_now(fleet: Fleet) -> SavedPlan:
    path = fleet.folder / "now.plan"
    fleet.operator.must("plan", "--out", str(path))
    return read_plan(path)


def with_replicas(saved: SavedPlan, replicas: int) -> SavedPlan:
    """The plan with so many replicas in its first group, its digests mended."""
    first, *rest = saved.plan.groups
    plan = replace(saved.plan, groups=(replace(first, replicas=replicas), *rest))
    return replace(saved, plan=plan)


def test_a_stale_plan_is_refused_with_5(fleet: Fleet) -> None:
    text = fleet.refused("apply", str(fleet.folder / "first.plan"), "--yes", code=5)
    assert "plan is stale: made at state serial 0, the fleet is at" in text
    assert "plan again" in text


def test_a_plan_of_files_that_changed_since_is_stale_too(fleet: Fleet, tmp_path: Path) -> None:
    files = tmp_path / "fleet"
    shutil.copytree(fleet.files, files)
    plan = tmp_path / "p.plan"
    fleet.operator.must("plan", "-f", str(files), "--out", str(plan))
    traffic = files / "traffic.yaml"
    traffic.write_text(traffic.read_text().replace("rate: 0.15 req/s", "rate: 0.16 req/s"))
    text = fleet.refused("apply", str(plan), "--yes", code=5)
    assert f"the fleet in {files} was changed since; plan again" in text


def test_an_edited_plan_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    saved_now(fleet)
    text = (fleet.folder / "now.plan").read_text()
    edited = tmp_path / "edited.plan"
    for damaged, why in (
        (text.replace('"replicas": 1', '"replicas": 2', 1), "edited or damaged"),
        (text[: len(text) // 2], "cut off or not JSON"),
    ):
        assert damaged != text
        edited.write_text(damaged)
        assert why in fleet.refused("apply", str(edited), "--yes", code=1)


def test_a_plan_beyond_a_sites_power_is_refused_by_the_gate(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "greedy.plan"
    write_plan(path, with_replicas(saved_now(fleet), 500))
    text = fleet.refused("apply", str(path), "--yes", code=1)
    assert "rejected" in text
    assert "power" in text and "60 W" in text
    assert "accelerators" in text


def test_without_consent_nothing_is_applied(fleet: Fleet) -> None:
    saved_now(fleet)
    for option in ((), ("--no-input",)):
        text = fleet.refused("apply", str(fleet.folder / "now.plan"), *option, code=64)
        assert "confirm it with --yes" in text


def test_the_infeasible_says_what_to_relax_and_a_lawless_class_is_named(
    fleet: Fleet, tmp_path: Path
) -> None:
    files = tmp_path / "fleet"
    shutil.copytree(fleet.files, files)
    models, tenants = files / "models.yaml", files / "tenants.yaml"
    kept = models.read_text()
    models.write_text(kept.replace("fewest: 1", "fewest: 50"))
    text = fleet.refused("plan", "-f", str(files), "--out", str(tmp_path / "p"), code=3)
    assert "pool_accelerators rix-1/cpu: 2 → 50 accelerators ($" in text
    models.write_text(kept)
    law = tenants.read_text()
    head, _, rest = law.partition("processingCountries: [")
    tenants.write_text(f"{head}processingCountries: [CH]\n{rest[rest.index(']') + 1 :]}")
    text = fleet.refused("plan", "-f", str(files), "--out", str(tmp_path / "p"), code=4)
    assert (
        "class chat/riga/daugava-clinic, policy eu-strict) may lawfully be served nowhere" in text
    )
    for site_id in ("osl-1", "rix-1", "waw-1"):
        assert f"{site_id}: " in text
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "line",
    [
        "rollout resume nonsense --yes",
        "rollout undo nonsense --yes",
        "rollout status nonsense",
        "site drain nowhere --yes",
        "failover nowhere --drill",
        "token create --tenant nobody",
        "audit residency --tenant nobody",
        "get sites nowhere",
    ],
)
def test_a_name_the_fleet_does_not_know_is_named(fleet: Fleet, line: str) -> None:
    name = next(w for w in ("nonsense", "nowhere", "nobody") if w in line)
    assert name in fleet.refused(*line.split(), code=1)


def plan_body(fleet: Fleet, **binding: Any) -> dict[str, Any]:
    plain = to_plain(saved_now(fleet))
    plain["binding"].update(binding)
    return {"plan": plain, "allow_empty": False}


def test_the_api_refuses_garbage_and_lives(fleet: Fleet) -> None:
    before = fleet.standing()
    bodies = [b"", b"[1]", b"\xb7\xff", b"[" * 100_000, b"9" * 10_000, b'{"plan": 1}']
    huge = plan_body(fleet, state_serial=HUGE)
    half = plan_body(fleet, fleet_digest="\ud800")
    nan = plan_body(fleet)
    nan["plan"]["problem"]["fleet"]["sites"][0]["pue"] = float("nan")
    bodies += [json.dumps(one).encode() for one in (huge, half, nan)]
    with fleet.api() as api:
        for body in bodies:
            answer = api.post("/v1/plans", content=body)
            assert answer.status_code == 422, (body[:80], answer.text)
            assert answer.json()["detail"]
        for path, body in (
            ("/v1/rollouts/resume", b"garbage"),
            ("/v1/rollouts/resume", b'{"receipt_id": 5}'),
            ("/v1/rollouts/resume", json.dumps({"receipt_id": "x" * 100_000}).encode()),
            ("/v1/rollouts/explode", b"{}"),
            ("/v1/sites/rix-1/explode", b"{}"),
            ("/v1/sites/rix-1/cordon", b'{"reason": "\\ud800"}'),
            ("/v1/sites/..%2frix-1/cordon", b"{}"),
            ("/v1/tokens", b'{"tenant_id": "daugava-clinic", "ttl_s": -1}'),
            ("/v1/tokens", b'{"tenant_id": "daugava-clinic", "ttl_s": 1e400}'),
        ):
            answer = api.post(path, content=body, headers={"content-type": "application/json"})
            assert 400 <= answer.status_code < 500, (path, body[:80], answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        for token in ("", "Bearer x", "Basic x", "Bearer \u00e9"):
            headers = {"Authorization": token.encode()}
            assert api.get("/v1/state", headers=headers).status_code == 401
    assert fleet.standing() == before


def test_a_second_fleet_in_the_same_folder_is_refused(fleet: Fleet) -> None:
    text = fleet.refused("up", "-f", str(fleet.files), "--runtime", "simulated", code=1)
    assert "another fleet runs in it" in text


def test_an_agent_with_another_sites_certificate_gets_nowhere(fleet: Fleet, tmp_path: Path) -> None:
    before = fleet.standing()
    state = fleet.folder / "state"
    control = (state / "server" / "front_door.address").read_text().strip()
    for site_id in ("waw-1", "nowhere"):
        argv = ["--site", site_id, "--state-dir", str(tmp_path / site_id), "--control", control]
        argv += ["--pki-dir", str(state / "pki" / "sites" / "rix-1"), "--runtime", "simulated"]
        done = subprocess.run(
            [sys.executable, "-m", "scheduler.cli", "agent", *argv, "--stop-on-exit"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=package_env(),
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f'agent of site "{site_id}": credential '), done.stderr
        assert "certificate of spiffe://hinterland/site/rix-1" in last
        assert f"needed is one of spiffe://hinterland/site/{site_id}; " in last
    assert fleet.standing() == before


def test_ctrl_c_stops_watching_and_the_change_goes_on(fleet: Fleet) -> None:
    head = [sys.executable, "-m", "scheduler.cli", "--context", str(fleet.folder / "state")]
    watching = subprocess.Popen(
        [*head, "site", "drain", "rix-1", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=package_env(),
    )
    newest = fleet.operator.view().receipts[-1].receipt_id
    fleet.operator.until(
        lambda view: view.receipts[-1].receipt_id != newest, what="the drain", timeout_s=30
    )
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=30)
    assert watching.returncode in (0, 130), (out, err)  # 0: it had ended before the signal came
    assert "Traceback" not in out + err
    if watching.returncode == 130:
        assert "what was already sent to the server goes on there" in err
    view = fleet.operator.until(
        lambda view: view.receipts[-1].is_final, what="the drain's end", timeout_s=60
    )
    assert view.receipts[-1].reason.value == "drain", view.receipts[-1]
    assert digest(view.plan) != ""
    fleet.operator.must("site", "uncordon", "rix-1", "--yes")
