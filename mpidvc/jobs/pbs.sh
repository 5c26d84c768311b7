#!/bin/bash
# A restartable job of mpidvc for PBS Pro. Submit it: qsub FILE. Cancel it: qdel ID (what is measured is kept).
#PBS -N @name@
#PBS -l select=@nodes@:ncpus=@ranks_per_node@:mpiprocs=@ranks_per_node@:mem=@memory_mib@mb
#PBS -l walltime=@time@
#PBS -q @partition@
#PBS -A @account@
#PBS -M @mail@
#PBS -m @mail_type@
#PBS -j oe
# PBS may start it again, for instance after the loss of a node.
#PBS -r y

# PBS lets operators only rerun a job: the next part is a job of its own, from a copy of this script.
requeue() {
    cp "$0" "$state/job.sh" && qsub "$state/job.sh"
}

@body@
