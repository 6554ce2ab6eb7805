#!/usr/bin/env bash
# What an accelerator does with moejax, in ten minutes and one table:  bash launch/accelerator_check.sh [bench options]
#   EXTRAS=cuda (the default) installs JAX for NVIDIA GPUs; EXTRAS= takes the JAX that is there (a TPU host's, a cluster's).
#   SIZE=tiny bash launch/accelerator_check.sh       another size than large-v2
# Random weights, bfloat16, batch 8 of 30 s. Results and the log lie in runs/accelerator.
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" "${EXTRAS-cuda}"
out=runs/accelerator
mkdir -p "$out"
.venv/bin/python - <<'PY' | tee "$out/device.txt"
import jax, moejax
print("moejax", moejax.__version__, "| jax", jax.__version__, "|", jax.default_backend(), "|", ", ".join(d.device_kind for d in jax.devices()))
PY
# How long one program of a search takes to compile, first, because everything else waits for it: with XLA's search for
# the best kernels and without. A compilation that hangs is stopped and named.
for level in 4 0; do
  XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=$level" timeout 120 .venv/bin/python -m moejax.bench.first_search \
    | sed "s/^/autotune level $level: /" | tee -a "$out/compile.txt" || echo "autotune level $level: no search within 120 s" | tee -a "$out/compile.txt"
done
.venv/bin/python -m moejax bench mel encode train decode --size "${SIZE:-large-v2}" --dtype bfloat16 --batch 8 \
  --row_limit 60 --limit 360 --json "$out/bench.json" "$@" | tee "$out/bench.txt"
