#!/usr/bin/env bash
#SBATCH --job-name=moejax-describe
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.log
# A corpus listened to by many nodes without accelerators, one shard each, submitted from the root of the repository; then the node with the GPU goes on:
#   listened=$(sbatch --parsable --array=1-16 launch/slurm_describe.sh configs/whisper_large_v2.py runs/large --config.data.root=DATA)
#   sbatch --dependency=afterok:"$listened" launch/slurm.sh configs/whisper_large_v2.py runs/large --config.data.root=DATA --config.model.pretrained=WEIGHTS
# The shards know nothing of one another: the workdir has to lie on a file system that all of them see, and config and overrides have to be the same in all (of data, describe and model).
# A shard that is stopped (75, 143) is queued again; one that was killed: submit the same line with --array=NUMBER. What a shard had heard is not listened to again,
# and the command that puts them together (describe, or all) names a shard that is missing. A packed corpus needs none of this: `moejax pack` has measured it.
# The shards are numbered from 1, and the array has to be whole, such as 1-16: its count is the number of shards. SHARDS=16 says it where a part of the array runs again.
if [ "$#" -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "usage: sbatch --array=1-N launch/slurm_describe.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
source launch/setup_env.sh "${EXTRAS:-quickstart}"
set +e # the exit codes below are read, not fatal
config="$1" workdir="$2"
shift 2
shard="$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}"
srun .venv/bin/python -m moejax describe --shard "$shard" --config "$config" --workdir "$workdir" --config.describe.threads="${SLURM_CPUS_PER_TASK:-4}" "$@" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"; code=$?
trap - TERM
# A trap interrupts `wait`: wait again for the code that moejax leaves with.
if kill -0 "$child" 2>/dev/null; then wait "$child"; code=$?; fi
if { [ "$code" -eq 75 ] || [ "$code" -eq 143 ]; } && [ -n "${SLURM_JOB_ID:-}" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
