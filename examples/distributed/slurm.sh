#!/bin/bash
# Train on two machines with four GPUs each. Submit it again to resume:
#
#   sbatch slurm.sh resnet50 /data/imagenet --run-dir runs/a --set batch_size=1024
#
#SBATCH --job-name=keras-deepnets
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Two minutes before the end, each task gets SIGUSR1. It saves its state and exits with status 143.
#SBATCH --signal=USR1@120
#SBATCH --requeue
set -euo pipefail

srun --kill-on-bad-exit=1 keras-deepnets train "$@" --distribute multiworker
