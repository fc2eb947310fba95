#!/bin/bash
# Pre-training on several machines under SLURM: `sbatch slurm.sh`. Change the lines marked with <-.
#
# One process a GPU, started by srun. Before its time is over (or when it is preempted), the job writes a checkpoint, ends
# and queues itself again; a job whose node died is queued again by SLURM. Every start continues from the last checkpoint.

#SBATCH --job-name=sslight
#SBATCH --nodes=2                    # <-
#SBATCH --ntasks-per-node=8          # <- processes, one a GPU; --ntasks alone is not enough
#SBATCH --gpus-per-node=8            # <-
#SBATCH --cpus-per-task=12           # <- the loader's processes are these less one
#SBATCH --mem=0
#SBATCH --time=24:00:00              # <-
#SBATCH --signal=B:USR1@300          # five minutes' notice, to this script, which passes it on
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

RECIPE=${RECIPE:-dino_cnn_sslight}             # <-
TRAIN=${TRAIN:-/data/imagenet/train}           # <- the same files on every node
OUTPUT=${OUTPUT:-runs/$SLURM_JOB_NAME}         # <- a folder that all nodes share

# A process that fails ends the others at once, or they would wait for it.
srun --kill-on-bad-exit=1 sslight pretrain "$RECIPE" \
    data.train="$TRAIN" output="$OUTPUT" resume=auto checkpoint.every_minutes=15 "$@" &
training=$!

warned=
pass_on() { warned=yes; kill -USR1 "$training"; }   # srun hands it to all processes
trap pass_on USR1 TERM

wait "$training"; code=$?
while [[ $code -gt 128 ]] && kill -0 "$training" 2>/dev/null; do   # a signal ended the waiting, not the training
    wait "$training"; code=$?
done

if [[ -n $warned && $code -ne 0 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
