# shellcheck shell=sh
# What scripts share that make a job file and run it themselves; they source it, with set -eu. A job file is
# made to its end before a job of it runs: made=$(jobs), which stops the script where `jobs` fails.

options=$* made='' failed=0

is_dry_run() { case " $options " in *' --dry-run '*) ;; *) return 1 ;; esac; }

# What COMMAND prints, changed by sed. In a pipe its failure would be lost.
filtered() { # SED_SCRIPT COMMAND...
    filter=$1
    shift
    text=$("$@") || return
    printf '%s\n' "$text" | sed "$filter"
}

# A job file whose stages come more than once, with all jobs of a stage below one heading: multirunner.sh
# runs the jobs of a stage at once.
by_stage() { # COMMAND...
    text=$("$@") || return
    printf '%s\n' "$text" | awk '
        /^# stage: / { stage = $0; if (!(stage in jobs)) order[++count] = stage; next }
        count { jobs[stage] = jobs[stage] $0 "\n"; next }
        { print }
        END { for (i = 1; i <= count; i++) printf "%s\n%s", order[i], jobs[order[i]] }'
}

# Run the job file in $made.
run_made() { # [--dry-run] [--keep-going]
    printf '%s\n' "$made" | sh -s -- "$@"
}

# With --keep-going only a signal ends the script; at its end $failed is 1 where a command failed.
attempt() { # COMMAND...
    status=0
    "$@" || status=$?
    [ "$status" -ne 0 ] || return 0
    case " $options " in
        *' --keep-going '*) [ "$status" -lt 128 ] || exit "$status" ;;
        *) exit "$status" ;;
    esac
    # shellcheck disable=SC2034
    failed=1
}

# Refuse paths that are no plain words: the script writes them into jobs as they are.
need_plain() { # NAME_OF_VARIABLE...
    for name; do
        value=''
        eval "value=\${$name-}"
        case $value in
            *[!A-Za-z0-9_./,:=+@%-]*)
                printf '%s\n' "$0: $name='$value': this script takes paths of letters, digits and _./,:=+@%-" \
                    "only; for another one make a symbolic link (ln -s)" >&2
                exit 2 ;;
        esac
    done
}
