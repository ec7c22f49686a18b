#!/bin/sh
# One line of a job file, on the host that runs it; multirunner.sh and its Slurm arrays call it.
#
#     sh multirunner/on_host.sh LINE
#
# Jobs that run at once on this host have slot numbers from 0. Slot k gets the k-th GPU of $GPUS
# ("0 2 3"), or of all that nvidia-smi lists; slots beyond the last GPU begin again at the first.
set -eu
line=$1
shift

# The job's open file holds the lock of its slot, so a killed job holds none.
if [ -z "${CUDA_VISIBLE_DEVICES+set}" ]; then
    gpus=${GPUS-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || :)}
    slot=$((${PARALLEL_JOBSLOT:-1} - 1))
    if command -v flock >/dev/null; then
        slots=${TMPDIR:-/tmp}/multirunner_slots_$(id -u)
        (umask 077 && mkdir -p "$slots")
        slot=0
        exec 8>"$slots/0"
        while ! flock -n 8; do
            slot=$((slot + 1))
            exec 8>"$slots/$slot"
        done
    fi
    # shellcheck disable=SC2086 # a list of words
    set -- $gpus
    if [ $# -gt 0 ]; then
        shift $((slot % $#))
        export CUDA_VISIBLE_DEVICES="$1"
    fi
    set --
fi

. multirunner/job.sh
trap - EXIT # one job needs no summary
trap : HUP INT TERM # the exit code is the job's, also after a signal
set +eu
eval "$line"
