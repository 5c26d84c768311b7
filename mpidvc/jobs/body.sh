# ---- below, the same for every scheduler ----------------------------------------------------------------------------

# A step that is finished is not repeated; one that is not goes on from its results file (--resume).
# Exit statuses of mpidvc: 0 finished, 1 finished but not to be trusted, 2 wrong command line or input, 70 error in mpidvc,
# 75 try again, 85 stopped on request.
set -u
cd @folder@ || exit 2
state=@state@
mkdir -p "$state" || exit 75

# ---- environment: as it was where `mpidvc job` was called
@modules@
@variables@
export PYTHONNOUSERSITE=1
python=(@python@)
per_node=(@per_node@) # runs a command once on each node
copy="" timer=""

# Shared memory of killed jobs: own files that no process maps.
free_memory() { ${per_node[@]+"${per_node[@]}"} "${python[@]}" -m mpidvc.runtime.leftovers; }

clean_up() {
    if [ -n "$timer" ]; then kill "$timer" 2>/dev/null; fi
    free_memory
    if [ -n "$copy" ]; then ${per_node[@]+"${per_node[@]}"} rm -rf "$copy"; fi
}
trap clean_up EXIT

# The Python environment on a disk of each node: one read of one file, instead of thousands for each rank.
local=@local@
if [ -n "$local" ]; then
    copy=$local/environment-of-${SLURM_JOB_ID:-${PBS_JOBID:-${LSB_JOBID:-${JOB_ID:-$$}}}}
    tar -C @prefix@ -cf "$state/environment.tar" . || exit 75
    # shellcheck disable=SC2016 # expanded on the nodes
    ${per_node[@]+"${per_node[@]}"} bash -c 'mkdir -p "$0" && tar -C "$0" -xf "$1"' "$copy" "$PWD/$state/environment.tar" || exit 75
    python=("$copy/bin/python")
fi
program=("${python[@]}" -m mpidvc)
launch=(@launch@)
after=(@after@)

# ---- stop signal: passed on as SIGUSR1, on which mpidvc writes what it has and ends
run="" stopped="" every=10
# Until it ends: a launcher that is still starting its ranks loses a signal. mpidvc heeds the first one that it gets.
insist() { while kill -USR1 "$run" 2>/dev/null; do sleep "$every"; done; }
pass_on() {
    if [ -n "$run" ] && [ -z "$stopped" ]; then insist & fi
    stopped=$1
}
trap 'pass_on limit' @limit_signals@
trap 'pass_on cancelled' @cancel_signals@
@timer@

# Ends the job, and has it started again unless it was cancelled or makes no progress.
stop() {
    local status=$1 now before=""
    if [ "$stopped" = cancelled ]; then exit "$status"; fi
    now="$(cat "$state/done" 2>/dev/null) $("${program[@]}" status --json ${results[@]+"${results[@]}"} 2>/dev/null | grep '"done"')"
    if [ -f "$state/progress" ]; then before=$(cat "$state/progress"); fi
    if [ "$now" = "$before" ]; then echo >>"$state/in-vain"; else rm -f "$state/in-vain"; fi
    printf '%s\n' "$now" >"$state/progress"
    if [ -f "$state/in-vain" ] && [ "$(wc -l <"$state/in-vain")" -ge 3 ]; then
        echo "no progress in three attempts: not started again (status $status)" >&2
        rm -f "$state/in-vain"
        exit "$status"
    fi
    echo "status $status: the job is started again, and goes on"
    requeue "$status"
    # shellcheck disable=SC2317 # with some schedulers requeue ends the script
    exit "$status"
}

# Runs a step; `results` are its results files (of mpidvc run its folder), `files` those that it leaves besides.
step() {
    local status file finished=yes verdict=0
    if grep -qxF -- "$*" "$state/done" 2>/dev/null; then
        echo "finished before: mpidvc $*"
        return
    fi
    if [ -n "$stopped" ]; then stop 85; fi
    echo "mpidvc $*"
    "${launch[@]}" "$@" ${after[@]+"${after[@]}"} &
    run=$!
    if [ -n "$stopped" ]; then insist & fi
    wait "$run"
    while kill -0 "$run" 2>/dev/null; do wait "$run"; done # a signal ends a wait
    wait "$run"
    status=$?
    run=""
    # the files decide: launchers may return 0 when all processes were killed
    for file in ${results[@]+"${results[@]}"}; do
        "${program[@]}" status -q "$file" 2>/dev/null
        case $? in 0) ;; 1) verdict=1 ;; *) finished=no ;; esac
    done
    for file in ${files[@]+"${files[@]}"}; do [ -s "$file" ] || finished=no; done
    case $status in
        0 | 1) if [ $finished = no ]; then status=75; elif [ $verdict = 1 ]; then status=1; fi ;;
        2 | 70 | 85) ;;
        6 | 11 | 134 | 135 | 136 | 139) ;; # crashed
        *) status=75 ;;                    # killed
    esac
    case $status in
        0) printf '%s\n' "$*" >>"$state/done" ;;
        75 | 85) stop "$status" ;;
        *) exit "$status" ;;
    esac
}

free_memory

@steps@

rm -rf "$state"
echo "all steps are finished"
