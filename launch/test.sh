#!/usr/bin/env bash
# Installs what the tests need (torch on the CPU for parity with transformers included) and runs them: at most 12 minutes on 2 cores.
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" torch,test,quickstart
exec .venv/bin/python -m pytest -n "${WORKERS:-2}" -q "$@"
