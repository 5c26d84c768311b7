#!/bin/bash
# A restartable job of mpidvc for Slurm. Submit it: sbatch FILE. Cancel it: scancel ID (what is measured is kept).
#SBATCH --job-name=@name@
#SBATCH --nodes=@nodes@
#SBATCH --ntasks-per-node=@ranks_per_node@
#SBATCH --cpus-per-task=1
#SBATCH --mem=@memory_mib@M
#SBATCH --time=@time@
#SBATCH --partition=@partition@
#SBATCH --account=@account@
#SBATCH --mail-user=@mail@
#SBATCH --mail-type=@mail_type@
# Its output: one file for all its parts.
#SBATCH --output=@name@.%j.out
#SBATCH --open-mode=append
# It may be started again: by Slurm after the loss of a node, by itself at its time limit.
#SBATCH --requeue
# The stop signal to this script, before the time limit.
#SBATCH --signal=B:USR1@@margin@

requeue() {
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # Slurm ends the script
}

@body@
