#!/usr/bin/env bash
#SBATCH --job-name=moejax
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
# One node of a SLURM cluster, submitted from the root of the repository:
#   sbatch launch/slurm.sh configs/whisper_large_v2.py runs/large --config.data.root=DATA --config.model.pretrained=WEIGHTS
# Makes .venv on first use; where compute nodes have no network, run `bash launch/setup_env.sh quickstart,cuda` on a login node first.
# The batch shell gets SIGTERM two minutes before the limit and hands it on; moejax leaves with code 75, and the job is queued again (also on 76: stuck, and 143: the signal came before moejax was there to hear it).
# Training saves before it leaves and resumes where it was; evaluation goes on with the next system; another stage begins again, so it has to fit into the limit.
# A job killed without warning loses what came after its newest checkpoint, nothing else: submit the same line again.
if [ "$#" -lt 2 ]; then
  echo "usage: sbatch launch/slurm.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
source launch/setup_env.sh "${EXTRAS:-quickstart,cuda}"
set +e # the exit codes below are read, not fatal
config="$1" workdir="$2"
shift 2
srun .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"; code=$?
trap - TERM
# A trap interrupts `wait`: wait again for the code that moejax leaves with.
if kill -0 "$child" 2>/dev/null; then wait "$child"; code=$?; fi
if { [ "$code" -eq 75 ] || [ "$code" -eq 76 ] || [ "$code" -eq 143 ]; } && [ -n "${SLURM_JOB_ID:-}" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
