#!/usr/bin/env bash
# One TPU slice; the same line on every one of its hosts, the workdir on storage that all of them share:
#   gcloud compute tpus tpu-vm ssh NAME --worker=all --command "cd moejax && bash launch/tpu.sh configs/whisper_large_v2.py /shared/large"
# JAX for TPUs is no extra of moejax: pip install "jax[tpu]" with the version that setup.py pins. Not tried here: there was no TPU.
if [ "$#" -lt 2 ]; then
  echo "usage: bash launch/tpu.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" "${EXTRAS:-quickstart}"
export MOEJAX_COORDINATOR=auto # what the slice says about its hosts
config="$1" workdir="$2"
shift 2
exec .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@"
