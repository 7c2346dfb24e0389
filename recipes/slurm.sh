#!/bin/bash
# Training on two machines of eight GPUs; for processors leave out `--gres` and set GPUS to the processes of a machine.
#   sbatch --export=ALL,STUDY=/shared/study,MODEL=/shared/model,RECIPE=recipes/three-way.toml recipes/slurm.sh
# A job that is killed or runs out of time goes on when it is submitted again: `--requeue` does so by itself.
#SBATCH --job-name=einthoven
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue

set -euo pipefail
: "${STUDY:?the study directory, on storage that all machines see}" "${MODEL:?the model directory to write}"
GPUS=${GPUS:-8}
LEADER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

for WORK in "align $STUDY --recipe ${RECIPE:-recipes/three-way.toml} --out $MODEL" "embed $MODEL $STUDY"; do
    # shellcheck disable=SC2086
    srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$GPUS" \
        --rdzv-backend c10d --rdzv-endpoint "$LEADER:29500" --rdzv-id "$SLURM_JOB_ID" -m einthoven $WORK
done
