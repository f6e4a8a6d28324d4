#!/bin/bash
#SBATCH --job-name=generation
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
# Serve a model on the machines of a Slurm job, in a container; call it; clean up.
#
#   CONTAINER=flywright.sqsh MODEL=/models/policy sbatch -A ACCOUNT -p PARTITION deploy/slurm.sh
#   MODEL=... TP=8 PP=4 sbatch --nodes=4 deploy/slurm.sh          # the line's options win
#
# SCRIPTS (this folder, or one of yours) is mounted at /scripts, MODEL at /model; CLIENT is a file of
# SCRIPTS. Without CONTAINER the same runs on the machines themselves. Submit where the logs belong.
#
# Other than on the model card: two machines are what the fit asks for in bf16 on H100 or A100-80GB
# (the card's text says 4, its script -N 2); MODEL is expanded in the mounts (there it is the word);
# a task is a machine and torchrun starts its 8 processes, so that one wait, one client and one
# clean-up belong to each machine; nothing that this job did not start is killed.
set -euo pipefail

: "${SLURM_JOB_ID:?submit this with sbatch}"
if [[ -z ${MODEL-} || ! -d $MODEL ]]; then
  echo "MODEL: name a weights folder that all machines see; this is none: '${MODEL-}'" >&2
  exit 2
fi
SCRIPTS=${SCRIPTS:-${SLURM_SUBMIT_DIR:-$PWD}/deploy}
CLIENT=${CLIENT:-call_server.py}
LOGS=${LOGS:-${SLURM_SUBMIT_DIR:-$PWD}}
for file in inference.sh "$CLIENT"; do
  if [[ ! -r $SCRIPTS/$file ]]; then
    echo "SCRIPTS: $SCRIPTS holds no $file" >&2
    exit 2
  fi
done

TP=${TP:-8}
PP=${PP:-$SLURM_NNODES} # tensor parallel inside a machine, pipeline between machines
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD=${HEAD%%$'\n'*} # not by `head`: it leaves at the first line, and pipefail makes that a failure
PORT=${PORT:-1424}
RENDEZVOUS_PORT=${RENDEZVOUS_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export TP PP HEAD PORT RENDEZVOUS_PORT # srun hands the environment on, into the container too

srun_options=(
  --output="$LOGS/slurm-%j-%n.out" --error="$LOGS/error-%j-%n.out"
  --kill-on-bad-exit=1 --wait=300 # a machine that does not stop after the first is ended
)
inside=$SCRIPTS model=$MODEL
if [[ -n ${CONTAINER-} ]]; then
  srun_options+=(
    --container-image="$CONTAINER"
    --container-mounts="$SCRIPTS:/scripts:ro,$MODEL:/model:ro"
  )
  inside=/scripts model=/model
fi

# scancel and a time limit signal the tasks themselves; what comes to this script alone is handed on.
step=''
trap '[[ -z $step ]] || kill -TERM "$step"' TERM INT
srun "${srun_options[@]}" bash "$inside/inference.sh" "$model" "$inside/$CLIENT" &
step=$!
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do # the trap has interrupted the wait
  status=0
  wait "$step" || status=$?
done
exit "$status"
