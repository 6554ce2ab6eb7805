#!/usr/bin/env bash
# The whole job on the embedded corpus: at most 8 minutes on 2 cores after the install, 3 with --fast.
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" quickstart
config=configs/quickstart.py workdir=runs/quickstart
if [ "${1:-}" = "--fast" ]; then
  config=configs/quickstart.py:fast workdir=runs/quickstart-fast
  shift
fi
exec .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@"
