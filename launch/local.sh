#!/usr/bin/env bash
# One machine, all its devices:  bash launch/local.sh configs/fsdd.py runs/fsdd --config.data.root=DATA/fsdd
# EXTRAS=quickstart,cuda installs JAX for NVIDIA GPUs too.
if [ "$#" -lt 2 ]; then
  echo "usage: bash launch/local.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" "${EXTRAS:-quickstart}"
config="$1" workdir="$2"
shift 2
exec .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@"
