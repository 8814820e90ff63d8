"""The `hinterland` command. Importing this loads neither the solver nor Ray, gRPC or the web app.

Commands decide nothing about plans: they read input, call the stage that decides, and show what it
said. Each module here holds one family of commands and imports what it needs when it runs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the installed command: run it, exit with its code."""
    from scheduler.cli.root import run

    sys.exit(run(sys.argv[1:]))


__all__ = ["main"]
