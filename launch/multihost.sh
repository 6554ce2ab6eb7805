#!/usr/bin/env bash
# Several machines that train one model: the same line on each, PROCESS from 0 up, the workdir on a file system that all of them share.
#   COORDINATOR=first.host:8476 PROCESSES=2 PROCESS=0 bash launch/multihost.sh configs/whisper_large_v2.py runs/large --config.mesh.fsdp=2
# A process that is killed or lost ends the others with code 76 after runtime.heartbeat seconds; each is then started again (RETRIES times)
# and they go on from the newest checkpoint. SIGTERM to any of them: all save the same step and leave with code 75.
if [ "$#" -lt 2 ] || [ -z "${COORDINATOR:-}" ] || [ -z "${PROCESSES:-}" ] || [ -z "${PROCESS:-}" ]; then
  echo "usage: COORDINATOR=HOST:PORT PROCESSES=N PROCESS=I bash launch/multihost.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" "${EXTRAS:-quickstart,cuda}"
export MOEJAX_COORDINATOR="$COORDINATOR" MOEJAX_PROCESSES="$PROCESSES" MOEJAX_PROCESS="$PROCESS"
config="$1" workdir="$2"
shift 2
set +e # the exit codes below are read, not fatal
child=0 asked=0
trap 'asked=1; kill -TERM "$child" 2>/dev/null' TERM INT
for _ in $(seq 0 "${RETRIES:-3}"); do
  .venv/bin/python -m moejax all --config "$config" --workdir "$workdir" "$@" &
  child=$!
  wait "$child"; code=$?
  # A trap interrupts `wait`: wait again for the code that moejax leaves with.
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  if [ "$asked" = 1 ]; then break; fi
  case "$code" in 76 | 134 | 137) echo "process $PROCESS ended with $code, starting it again" >&2 ;; *) break ;; esac
done
exit "$code"
