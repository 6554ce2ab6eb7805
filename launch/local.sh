#!/usr/bin/env bash
# One machine, all its devices:  bash launch/local.sh configs/fsdd.py runs/fsdd --config.data.root=DATA/fsdd
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" quickstart
config="$1" workdir="$2"
shift 2
exec .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@"
