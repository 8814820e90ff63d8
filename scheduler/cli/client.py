"""The operator API as the CLI calls it: one server on this machine, found through its state folder.

Maps transport failures and problem documents (RFC 9457) to messages and exit codes; what is asked
of the server is the commands' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scheduler.cli.output import CliError, ExitCode

if TYPE_CHECKING:
    import httpx

    from scheduler.receipt import Receipt
    from scheduler.view import FleetView

API_FILE = Path("server") / "api.json"
TIMEOUT_S = 30.0

_EXIT_CODES = {
    "stale": ExitCode.STALE,
    "infeasible": ExitCode.INFEASIBLE,
    "policy_denied": ExitCode.POLICY_DENIED,
}


class NoServerError(CliError):
    """No server is known or answers; commands that can do without one catch this."""


class Api:
    """One server's API. Use `connected`, which closes it."""

    def __init__(self, client: httpx.Client, *, where: str) -> None:
        self._client = client
        self._where = where

    def get(self, path: str, **query: Any) -> Any:
        """GET as plain JSON; raises CliError with the server's own words and their exit code."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST of a JSON body; as `get`."""
        return self._call("POST", path, json=dict(body))

    def state(self) -> FleetView:
        """The whole fleet as the server knows it."""
        from scheduler.view import FleetView
        from sites.plain import from_plain

        return from_plain(FleetView, self.get("/v1/state"))

    def receipt(self, receipt_id: str, *, wait_ms: int = 0, seen: str = "") -> Receipt:
        """A receipt; waits up to `wait_ms` for one whose digest is not `seen`."""
        from scheduler.receipt import Receipt
        from sites.plain import from_plain

        plain = self.get(f"/v1/receipts/{segment(receipt_id)}", wait_ms=wait_ms, seen=seen or None)
        return from_plain(Receipt, plain)

    def _call(self, method: str, path: str, **settings: Any) -> Any:
        import httpx

        try:
            response = self._client.request(method, path, **settings)
        except httpx.HTTPError as fault:
            raise self._unreachable(fault) from fault
        if response.status_code >= 400:
            raise _problem(response)
        return response.json()

    def _unreachable(self, fault: Exception) -> NoServerError:
        return NoServerError(
            ExitCode.ERROR,
            f"server at {self._where} does not answer ({type(fault).__name__}); "
            "is `hinterland up` running?",
        )


def segment(name: str) -> str:
    """A name somebody typed as one segment of a path, whatever is in it."""
    if name in ("", ".", "..") or "/" in name:
        raise CliError(ExitCode.ERROR, f"{name!r} is no name of a site or change")
    return quote(name, safe="")


@contextmanager
def connected(state_dir: Path) -> Iterator[Api]:
    """The API of the server whose state lies in `state_dir`; raises NoServerError if none does."""
    import httpx

    path = state_dir / API_FILE
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        url, token = str(entry["url"]), str(entry["token"])
    except FileNotFoundError as fault:
        raise NoServerError(
            ExitCode.ERROR,
            f"no server in {state_dir} ({API_FILE} is missing); start one with `hinterland up` or "
            "name its state folder with --context",
        ) from fault
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise CliError(ExitCode.ERROR, f"{path}: unreadable ({fault}); restart the server") from (
            fault
        )
    headers = {"Authorization": f"Bearer {token}"}
    # trust_env off: a proxy of the environment must never see the token or loopback traffic
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        yield Api(client, where=url)


def _problem(response: httpx.Response) -> CliError:
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem.get("code", ""))
        lines = [detail, *(str(one) for one in problem.get("violations", ()))]
    except (ValueError, KeyError, TypeError):
        detail, code = f"the server answered {response.status_code} without saying why", ""
        lines = [detail]
    return CliError(_EXIT_CODES.get(code, ExitCode.ERROR), "\n  ".join(lines))
