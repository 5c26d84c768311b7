#!/bin/bash
# A restartable job of mpidvc for LSF. Submit it: bsub < FILE. Cancel it: bkill ID (what is measured is kept).
#BSUB -J @name@
#BSUB -n @ranks@
#BSUB -R "span[ptile=@ranks_per_node@]"
# Memory of a host in MB; some sites count it by slot.
#BSUB -R "rusage[mem=@memory_mib@]"
#BSUB -W @time_minutes@
#BSUB -q @partition@
#BSUB -P @account@
#BSUB -u @mail@
#BSUB @mail_type@
#BSUB -o @name@.%J.out
# LSF starts it again after the loss of a host, and at these exit statuses.
#BSUB -r
#BSUB -Q "75 85"

requeue() {
    exit "$1"
}

@body@
