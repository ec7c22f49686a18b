#!/bin/sh
# Run a job file on several hosts over ssh, with GNU parallel, or print it as Slurm job arrays.
#
#     sh multirunner/multirunner.sh [options] multirunner/hosts.txt multirunner/all_jobs.sh
#     sh multirunner/multirunner.sh --slurm [options] multirunner/all_jobs.sh > submit.sh
#
# The jobs of a stage (the lines after `# stage: NAME`) run at once, as many as hosts.txt allows; the
# next stage starts when all of them are done. A job goes to the next free host. When it fails, it
# goes to another one. Hosts that cannot be used are reported and left out. All hosts see the same
# data and runs, over NFS for example. They need sh and perl, and flock to know what is running.
#
#   --resume      go on after this runner was stopped: only jobs that are not done run
#   --keep-going  after a stage with failed jobs, start the next one all the same
#   --retries N   try a job N times (default 3)
#   --joblog F    table of all jobs (default runs/multirunner/<job file>.joblog); the jobs' own output
#                 is in F.d/<stage>/<line>.log
#   --config F    shell lines each host runs first: folder, Python, ... (default config.sh here)
#   --dry-run     print the hosts and the jobs, run nothing
#   --slurm       print a script that submits one job array per stage
set -eu
{ # sh reads all of this before it runs, so the file may change while jobs run for days

here=$(cd "$(dirname "$0")" && pwd)
resume='' keep_going='' dry_run='' slurm=''
retries=3 joblog='' config=$here/config.sh

usage() { sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"; }
die() { printf '%s\n' "multirunner.sh: $*" >&2; exit 2; }
quote() { printf "'"; printf %s "$1" | sed "s/'/'\\\\''/g"; printf "'"; }

while [ $# -gt 0 ]; do
    case $1 in
        --resume) resume=1 ;;
        --keep-going) keep_going=1 ;;
        --dry-run) dry_run=1 ;;
        --slurm) slurm=1 ;;
        --retries | --joblog | --config)
            [ $# -gt 1 ] || die "$1 needs a value"
            case $1 in
                --retries) retries=$2 ;;
                --joblog) joblog=$2 ;;
                --config) config=$2 ;;
            esac
            shift ;;
        -h | --help) usage; exit ;;
        -*) die "no option $1; --help lists them" ;;
        *) if [ -z "${first+set}" ]; then first=$1
           elif [ -z "${second+set}" ]; then second=$1
           else die "one hosts file and one job file, found also $1"; fi ;;
    esac
    shift
done
case $retries in '' | *[!0-9]* | 0) die "--retries $retries is not a whole number above 0" ;; esac
if [ -n "$slurm" ] && [ -z "${second+set}" ]; then second=${first-} first=''; fi
hosts_file=${first-} job_file=${second-}
[ -n "$job_file" ] || die "name a hosts file and a job file; --help shows how"
[ -f "$job_file" ] || die "no job file $job_file; multirunner/create_all_jobs.sh writes one"
[ -n "$slurm" ] || [ -f "$hosts_file" ] || die "no hosts file $hosts_file"
[ -f "$config" ] || die "no --config $config"
name=$(basename "$job_file" .sh)
joblog=${joblog:-$(dirname "$here")/runs/multirunner/$name.joblog}
logs=$joblog.d

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The jobs of each stage, one file each, in order: $work/01_backbone, $work/02_exits, ...
awk -v work="$work" -v file="$job_file" '
    function fail(words) { print "multirunner.sh: " file ":" NR ": " words > "/dev/stderr"; exit 2 }
    { sub(/\r$/, "") }
    /^[ \t]*#[ \t]*stage:/ {
        name = $0
        sub(/^[ \t]*#[ \t]*stage:[ \t]*/, "", name); sub(/[ \t]+$/, "", name)
        if (name !~ /^[A-Za-z0-9][A-Za-z0-9_.-]*$/)
            fail("a stage is named by letters, digits, _ . and -, not \"" name "\"")
        if (name in known) fail("stage " name " is there twice")
        known[name] = 1
        stage = sprintf("%s/%02d_%s", work, ++count, name)
        next
    }
    stage == "" && /^[ \t]*job[ \t]/ { fail("a job above the first `# stage:` line, which would not run") }
    stage == "" || /^[ \t]*(#|$)/ { next }
    /\\$/ { fail("a job is one line, this one ends with a backslash") }
    { print > stage; jobs++ }
    END { if (!jobs) fail("no jobs; they stand below lines such as `# stage: exits`") }
' "$job_file" || exit 2
stages=$(cd "$work" && ls)

if [ -n "$slurm" ]; then
    dependency=afterok
    [ -z "$keep_going" ] || dependency=afterany
    cat <<END
#!/bin/sh
# Submits $name to Slurm, one job array per stage, each after the one before; arguments go to sbatch:
#     sh submit.sh --partition=gpu --gres=gpu:1 --time=12:00:00
# Two minutes before its time is over a training saves itself, and goes back into the queue.
# The job file that this was made from: $job_file
set -eu
mkdir -p $(quote "$logs")
after=''
END
    for stage in $stages; do
        count=$(wc -l <"$work/$stage" | tr -d ' ')
        cat <<END

# stage: ${stage#*_}
id=\$(sbatch --parsable --requeue --open-mode=append --signal=USR1@120 --kill-on-invalid-dep=yes \\
    --job-name=${stage#*_} --array=1-$count --output=$(quote "$logs/${stage}_%a.log") \\
    \$after "\$@" <<'SCRIPT'
#!/bin/sh
checkout=$(quote "$(dirname "$here")")
set -ea
$(cat "$config")
case \$SLURM_ARRAY_TASK_ID in
END
        n=0
        while IFS= read -r line; do
            n=$((n + 1))
            printf '    %s) set -- %s ;;\n' "$n" "$(quote "$line")"
        done <"$work/$stage"
        cat <<END
esac
SRUN_CPUS_PER_TASK=\${SLURM_CPUS_PER_TASK:-1} # which srun does not take from sbatch by itself
status=0
srun sh multirunner/on_host.sh "\$1" || status=\$?
[ \$status -ne 75 ] || scontrol requeue "\${SLURM_ARRAY_JOB_ID}_\$SLURM_ARRAY_TASK_ID"
exit \$status
SCRIPT
)
after=--dependency=$dependency:\${id%%;*}
echo "\$id  ${stage#*_}: $count jobs"
END
    done
    exit
fi

# Hosts as parallel reads them, JOBS/LOGIN.
awk -v file="$hosts_file" '
    function fail(words) { print "multirunner.sh: " file ":" NR ": " words > "/dev/stderr"; exit 2 }
    { sub(/\r$/, ""); sub(/#.*/, ""); gsub(/^[ \t]+|[ \t]+$/, "") }
    $0 == "" { next }
    !/^([1-9][0-9]*\/)?(:|([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*)$/ {
        fail("\"" $0 "\" is not [JOBS/][USER@]HOST")
    }
    { jobs = 1; login = $0 }
    /\// { split($0, part, "/"); jobs = part[1]; login = part[2] }
    login in known { fail(login " is there twice; 2/" login " takes two jobs at once") }
    { known[login] = 1; print jobs "/" login }
' "$hosts_file" >"$work/.hosts" || exit 2
[ -s "$work/.hosts" ] || die "$hosts_file names no host"

if [ -n "$dry_run" ]; then
    sed 's/^/host: /' "$work/.hosts"
    for stage in $stages; do
        echo "# stage: ${stage#*_}"
        cat "$work/$stage"
    done
    exit
fi
parallel --version 2>/dev/null | grep -q '^GNU parallel' || # moreutils has another `parallel`
    die "GNU parallel is needed; on Debian and Ubuntu: apt-get install parallel"

# The jobs of a host that does not answer for a minute have failed.
PARALLEL_SSH="${PARALLEL_SSH:-ssh} -o BatchMode=yes -o ConnectTimeout=10 \
-o ServerAliveInterval=15 -o ServerAliveCountMax=4"
MULTIRUNNER_CONFIG=$(cat "$config")
checkout=$(dirname "$here")
export PARALLEL_SSH MULTIRUNNER_CONFIG checkout

# shellcheck disable=SC2016 # the host expands it
set_up='set -ea; eval "$MULTIRUNNER_CONFIG"; exec 2>&1; '
on_hosts() { exec parallel --plain --env MULTIRUNNER_CONFIG,checkout "$@" 7>&-; } # in a subshell

# Parallel passes Ctrl-C on. When it stops, the connections close, and its process on each host ends
# the job: by SIGTERM, so that a training can save itself, and by SIGKILL ten seconds later.
runner=''
# shellcheck disable=SC2317 # the trap calls it
stop() {
    trap '' INT TERM HUP
    [ -z "$runner" ] || { kill -TERM "$runner" 2>/dev/null || :; wait "$runner" || :; }
    echo "stopped; --resume goes on from here"
    exit 130
}
trap stop INT TERM HUP

# Try on all hosts at once what a job needs.
n=0
while IFS= read -r host; do
    n=$((n + 1))
    (
        probe="sh -c $(quote "$set_up [ -f multirunner/on_host.sh ] || {
            echo \"no multirunner/on_host.sh in \$PWD; --config must cd to this repository\"; exit 1; }")"
        (on_hosts -S "$host" "$probe" ::: probe) >"$work/.probe$n" 2>&1 </dev/null || exit
        printf '%s\n' "$host" >"$work/.usable$n"
    ) &
done <"$work/.hosts"
wait
n=0
while IFS= read -r host; do
    n=$((n + 1))
    if [ -f "$work/.usable$n" ]; then
        echo "host ${host#*/} takes ${host%%/*} job(s) at once"
        cat "$work/.usable$n" >>"$work/.usable"
    else
        echo "host ${host#*/} is LEFT OUT, since it cannot be used:"
        tail -n 5 "$work/.probe$n" | sed 's/^/    /'
    fi
done <"$work/.hosts"
[ -s "$work/.usable" ] || die "none of the hosts in $hosts_file can be used"

mkdir -p "$logs"
if command -v flock >/dev/null; then # a second runner would remove the logs by which the first one counts
    exec 7>"$joblog.lock"
    flock -n 7 || die "another runner uses $joblog; wait for it, or name another --joblog"
fi
if [ -n "$resume" ] && [ -f "$logs/jobs" ]; then
    # Parallel knows done jobs by their numbers, so the numbers must mean the same jobs as before.
    cmp -s "$job_file" "$logs/jobs" ||
        die "$job_file has changed since $joblog was begun; leave out --resume: jobs whose" \
            "results are there are skipped all the same"
else
    rm -rf "${logs:?}"/*
    cp "$job_file" "$logs/jobs"
fi

# shellcheck disable=SC2016 # the host expands it
job="sh -c $(quote "$set_up"'exec sh multirunner/on_host.sh "$1"') sh {}"
last() { # STAGE: the last try of each of its jobs, as: Seq Host Runtime Exitval Signal
    awk -F '\t' 'FNR > 1 { row[$1] = $1 " " $2 " " $4 + 0 " " $7 " " $8 }
        END { for (seq in row) print row[seq] }' "$logs/$1.joblog" | sort -n
}
all_stages() { # one table of the stages so far, with the jobs as the job file has them
    printf 'Stage\tSeq\tHost\tSeconds\tExitval\tSignal\tCommand\n'
    for each in $stages; do
        [ -f "$logs/$each.joblog" ] || continue
        last "$each" | while read -r seq host seconds status signal; do
            printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${each#*_}" "$seq" "$host" "$seconds" \
                "$status" "$signal" "$(sed -n "${seq}p" "$work/$each")"
        done
    done
}

not_done=0
for stage in $stages; do
    count=$(wc -l <"$work/$stage" | tr -d ' ')
    echo "stage ${stage#*_}: $count job(s)"
    set -- --sshloginfile "$work/.usable" -j 100% --retries "$retries" --term-seq TERM,10000,KILL,25
    set -- "$@" --joblog "$logs/$stage.joblog" --results "$logs/$stage/{#}.log"
    [ -z "$resume" ] || set -- "$@" --resume-failed
    [ ! -t 2 ] || set -- "$@" --bar
    mkdir -p "$logs/$stage"
    on_hosts "$@" -a "$work/$stage" "$job" </dev/null &
    runner=$!
    wait "$runner" || [ $? -le 101 ] || die "parallel failed, see above"
    runner=''
    all_stages >"$joblog"
    last "$stage" | awk '{ jobs[$2]++; seconds[$2] += $3; failed[$2] += ($4 || $5) }
        END { for (host in jobs) printf "    %s: %d job(s), %d failed, %.0f s of work\n",
            host, jobs[host], failed[host], seconds[host] }' | sort
    done=$(last "$stage" | awk '!$4 && !$5' | wc -l)
    not_done=$((not_done + count - done))
    [ "$not_done" -eq 0 ] || [ -n "$keep_going" ] || break
done

for each in $stages; do
    [ -f "$logs/$each.joblog" ] || continue
    last "$each" | while read -r seq host _ status signal; do
        [ "$status$signal" != 00 ] || continue
        printf 'FAILED on %s with exit code %s: ' "$host" "$status"
        sed -n "${seq}p" "$work/$each"
        tail -q -n 8 "$logs/$each/$seq.log.err" "$logs/$each/$seq.log" | sed 's/^/    /'
        echo "    (all of it: $logs/$each/$seq.log)"
    done
done
if [ "$not_done" -gt 0 ]; then
    echo "$not_done job(s) of stage ${stage#*_} or before failed; --resume tries them again"
    exit 1
fi
echo "all jobs done; their table is $joblog"
}; exit
