"""Program: one llama.cpp server until it is told to end. The HTTP server and its threads are C++.

Decides nothing; `agents.runtimes.llama` chooses every setting.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading


def main() -> int:
    """Serve until SIGTERM; 1 if the model cannot be served."""
    options = _options()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    import xllamacpp  # noqa: PLC0415 - after the handlers, so SIGTERM works while it loads

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_parallel = options.slots
    params.n_ctx = options.context
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as fault:
        sys.stderr.write(f"llama server: {options.model}: {fault}\n")
        return 1
    sys.stdout.write(f"listening on {server.listening_address}\n")
    sys.stdout.flush()
    stop.wait()
    # The C++ threads may be in the middle of a request that was given its chance to end already.
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_server")
    for name in ("--model", "--alias", "--host"):
        parser.add_argument(name, required=True)
    for name in ("--port", "--threads", "--slots", "--context"):
        parser.add_argument(name, type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
