#!/bin/sh
# One line of a job file, on the host that runs it; multirunner.sh and its Slurm arrays call it.
#
#     sh multirunner/on_host.sh LINE
#
# Every job at once on this host has a slot number, from 0; slot k gets the k-th GPU: of $GPUS
# ("0 2 3"), or of all that nvidia-smi lists, over again when there are more jobs than GPUs.
set -eu
line=$1
shift

# The lock of a slot is held by the job's open file, so it goes when the job goes, however that is.
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
trap - EXIT # one job needs no summary, and whatever happens,
trap : HUP INT TERM # its exit code is this script's
set +eu
eval "$line"
