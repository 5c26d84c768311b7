#!/bin/bash
# A restartable job of mpidvc for Grid Engine. Submit it: qsub FILE. Cancel it: qdel ID (what is measured is kept).
#$ -N @name@
#$ -S /bin/bash
#$ -cwd
#$ -pe @parallel_environment@ @ranks@
# Memory of a slot.
#$ -l mem_free=@memory_mib_per_rank@M
#$ -l h_rt=@time@
#$ -q @partition@
#$ -P @account@
#$ -M @mail@
#$ -m @mail_type@
#$ -j y
# A signal comes before the job is suspended (USR1) or killed (USR2).
#$ -notify
#$ -r y

# Grid Engine starts a job again that ends with 99.
requeue() {
    exit 99
}

@body@
