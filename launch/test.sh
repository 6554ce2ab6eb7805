#!/usr/bin/env bash
# Installs what the tests need (torch on the CPU for parity with transformers included) and runs them: about 25 to 40 minutes on 2 cores.
#   bash launch/test.sh --fast     without whole jobs, faults, parity, browsers and what is long to compile: at most 3 minutes
#   bash launch/test.sh tests/nn   further arguments go to pytest
# PyPI's torch for Linux brings CUDA, gigabytes of it; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the build without.
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" torch,test,quickstart
chosen=()
if [ "${1:-}" = "--fast" ]; then
  chosen=(-m "not job and not faults and not parity and not compiled and not browser")
  shift
fi
# A file's tests stay on one worker: they share its fixtures and what it has compiled.
exec .venv/bin/python -m pytest -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder -q "${chosen[@]}" "$@"
