# shellcheck shell=sh
# The commands of job files. A job file sources this file, then has one line per job,
#
#     job RESULT COMMAND...
#
# It runs COMMAND unless the file RESULT is there (RESULT -: always). A job that does not write
# RESULT has failed. `python` in COMMAND is $PYTHON (default python3).
# Options of the job file: --dry-run prints what would run, --keep-going goes on after a failed job.
# Ctrl-C, like any signal to the whole process group, stops the running job and all that follow. A
# signal to this shell alone takes effect when the running job ends.

keep_going='' dry_run=''
for option; do
    case $option in
        --keep-going) keep_going=1 ;;
        --dry-run) dry_run=1 ;;
        *) echo "usage: sh $0 [--dry-run] [--keep-going]" >&2; exit 2 ;;
    esac
done
done=0 skipped=0 failures='' failed=0

job() { # RESULT COMMAND...
    result=$1
    shift
    [ "$1" != python ] || { shift; set -- "${PYTHON:-python3}" "$@"; }
    if [ "$result" != - ] && [ -e "$result" ]; then
        printf '%s\n' "skipped, $result is there: $*"
        skipped=$((skipped + 1))
        return
    fi
    printf '%s\n' "+ $*"
    [ -z "$dry_run" ] || return 0
    if run_locked "$result" "$@"; then
        done=$((done + 1))
        return
    else
        status=$?
    fi
    failed=$((failed + 1))
    failures="$failures
failed with exit code $status: $*"
    [ -n "$keep_going" ] || exit "$status"
}

# One process at a time makes a result, over all hosts: the last jobs of a killed runner may still
# be running when the next runner starts. A lock is waited for LOCK_WAIT seconds at most, since some
# NFS servers keep the lock of a host that is gone.
run_locked() ( # RESULT COMMAND...
    result=$1
    shift
    [ "$result" != - ] || exec "$@" </dev/null
    trap : HUP INT TERM USR1 # the job gets the signal too: wait until it has saved itself
    folder=$(dirname -- "$result")
    mkdir -p -- "$folder" || exit
    lock=$folder/.$(basename -- "$result").lock
    if command -v flock >/dev/null; then
        exec 9>"$lock"
        if ! flock -n 9; then
            echo "waiting: another process is making $result"
            flock -w "${LOCK_WAIT:-600}" 9 || echo "$lock is still locked, going on without"
        fi
        if [ -e "$result" ]; then
            rm -f -- "$lock"
            printf '%s\n' "skipped, $result is there now: $*"
            exit 0
        fi
    fi
    "$@" </dev/null || exit
    [ -e "$result" ] || { printf '%s\n' "$result was not written by: $*" >&2; exit 1; }
    rm -f -- "$lock"
)

summary() {
    status=$?
    trap - EXIT
    [ -n "$dry_run" ] ||
        printf '%s\n' "jobs: $done done, $skipped skipped, $failed failed$failures"
    [ "$failed" -eq 0 ] || [ "$status" -ne 0 ] || status=1
    if [ "$status" -ne 0 ] && [ -z "$keep_going" ]; then
        echo "stopped; the same command goes on from here, --keep-going past failures"
    fi
    exit "$status"
}

trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
trap : USR1 # for the job, which then writes a checkpoint
trap summary EXIT
