#!/bin/bash
# A restartable run of mpidvc on this host: bash FILE. Stop it: Ctrl-C, or kill its process; the same line goes on.

# Not at once: memory or disk space may be missing.
requeue() {
    if [ "$1" = 85 ]; then return; fi
    sleep 10
    clean_up
    exec bash "$0"
}

@body@
