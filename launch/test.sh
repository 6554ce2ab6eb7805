#!/usr/bin/env bash
# Installs what the tests need (torch on the CPU for parity with transformers included) and runs them: at most 12 minutes on 2 cores.
# PyPI's torch for Linux brings CUDA, gigabytes of it; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the build without.
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" torch,test,quickstart
exec .venv/bin/python -m pytest -n "${WORKERS:-2}" -q "$@"
