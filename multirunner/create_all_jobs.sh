#!/bin/sh
# Print the whole study as a job file, one command per line.
#
#     sh multirunner/create_all_jobs.sh > multirunner/all_jobs.sh
#
# Stages, in order: a backbone per split, the bank of its views, exits per split, seed and
# method, their logits, WISE weights, thresholds, and the tables of all runs. The recipes are those
# in training/recipes.txt. Options, with their defaults:
#
#   --data NAMES             data sets                      (ucf101 hmdb51)
#   --splits NAMES                                          (split1 split2 split3)
#   --seeds NAMES            of the exits                   (1 736 4711)
#   --backbone-seed N        of the backbones               (1)
#   --methods NAMES          (team_ce prog_kd prog_kd_anti i_frame); also NAME:SCHEDULE, for example
#                            mv_then_all:mv:10,fused: train_prog_kd.py with teachers of your own
#   --data-root PATH         folder of the videos           (data/{data})
#   --lists PATH             list files                     (lists/{data}_{split}_{part}.txt)
#   --runs DIR               where runs go                  (runs)
#   --results PATH           where the tables go            (results/{data})
#   --init FILE              weights a backbone starts from, '' for none
#                            (runs/kinetic400/pretrain/split1_seed1/best.pt, by pretrain.py)
#   --backbone PATH          train no backbone, take this one
#   --shards N               jobs that share the making of one bank (1)
#   --network FLAGS          of backbone, bank and exits    (none: the published network)
#   --all-flags FLAGS        of all scripts that read videos
#   --backbone-flags FLAGS   of train_team_net.py
#   --frozen-flags FLAGS     of the bank, the exits and save_logits.py
#   --exit-flags FLAGS       of the exits
#   --wise-flags FLAGS       of wise_team_net_logit.py
#   --policy-flags FLAGS     of team_net_wise_all_acc.py
#
# NAMES are words separated by spaces. In a PATH, {data}, {split} and {part} (train or test) are
# replaced. FLAGS go into the commands as they are, in the place of the recipe's.
set -euf

data='ucf101 hmdb51' splits='split1 split2 split3' seeds='1 736 4711'
methods='team_ce prog_kd prog_kd_anti i_frame'
data_root='data/{data}' lists='lists/{data}_{split}_{part}.txt' runs=runs results='results/{data}'
init=runs/kinetic400/pretrain/split1_seed1/best.pt backbone='' backbone_seed=1 shards=1
recipes=$(dirname "$0")/../training/recipes.txt
network='' all_flags='' backbone_flags='' frozen_flags='' exit_flags='' wise_flags='' policy_flags=''

die() { printf '%s\n' "create_all_jobs.sh: $*" >&2; exit 2; }

# One word of shell, in quotes where it needs them.
quote() {
    case $1 in
        '' | *[!A-Za-z0-9_./,:=+-]*)
            printf "'"; printf %s "$1" | sed "s/'/'\\\\''/g"; printf "'" ;;
        *) printf %s "$1" ;;
    esac
}

# Set lr, batch, epochs, steps, wd and schedule from a row of the recipes; fails without a row.
read_recipe() { # SCRIPT DATA
    while read -r row_script row_data lr batch epochs steps wd schedule; do
        [ "$row_script $row_data" != "$1 $2" ] || return 0
    done <"$recipes"
    return 1
}

is_method() { read_recipe "train_$1" any && [ "$schedule" != - ]; }

newline='
'
made_by="sh multirunner/create_all_jobs.sh"
for word; do
    case $word in *"$newline"*) die "a line break in $word" ;; esac
    made_by="$made_by $(quote "$word")"
done
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"; exit ;;
        --*) [ $# -gt 1 ] || die "$1 needs a value; --help lists the options" ;;
        *) die "no argument $1; --help lists the options" ;;
    esac
    case $1 in
        --data) data=$2 ;;
        --splits) splits=$2 ;;
        --seeds) seeds=$2 ;;
        --backbone-seed) backbone_seed=$2 ;;
        --methods) methods=$2 ;;
        --data-root) data_root=$2 ;;
        --lists) lists=$2 ;;
        --runs) runs=$2 ;;
        --results) results=$2 ;;
        --init) init=$2 ;;
        --backbone) backbone=$2 ;;
        --shards) shards=$2 ;;
        --network) network=$2 ;;
        --all-flags) all_flags=$2 ;;
        --backbone-flags) backbone_flags=$2 ;;
        --frozen-flags) frozen_flags=$2 ;;
        --exit-flags) exit_flags=$2 ;;
        --wise-flags) wise_flags=$2 ;;
        --policy-flags) policy_flags=$2 ;;
        *) die "no option $1; --help lists the options" ;;
    esac
    shift 2
done
check_seed() { # OPTION SEED
    case $2 in
        '' | *[!0-9]*) die "$1 $2 is not a whole number" ;;
        0?*) die "$1 $2 begins with a 0, which the run's folder will not" ;;
    esac
}
for seed in $seeds; do check_seed --seeds "$seed"; done
check_seed --backbone-seed "$backbone_seed"
case $shards in '' | *[!0-9]* | 0*) die "--shards $shards is not a whole number above 0" ;; esac
# Flags would win over what is written before them, and results would be where no job looks.
for flag in $network $all_flags $backbone_flags $frozen_flags $exit_flags $wise_flags $policy_flags; do
    case ${flag%%=*} in
        --data-name) use='--data' ;;
        --split) use='--splits' ;;
        --method) use='--methods' ;;
        --random_seed) use='--seeds or --backbone-seed' ;;
        --checkpoint_dir) use='--runs' ;;
        --pretrained) use='--init or --backbone' ;;
        --data-root | --train-list | --test-list) use='--data-root or --lists' ;;
        --shard) use='--shards' ;;
        *) continue ;;
    esac
    die "$flag among the flags: the option for it is $use"
done
for method in $methods; do
    name=${method%%:*}
    case $method in
        *[!A-Za-z0-9_.,:-]*) die "--methods $method: no such method" ;;
        prog_kd:?*) ;;
        team_net:* | streams:* | pretrain:* | views:* | i_frame_probe:*)
            die "--methods $method: $name is what another script makes; take a new name" ;;
        *:?*) ! is_method "$name" || die "--methods $method: $name has its own teachers" ;;
        *)
            is_method "$method" ||
                die "--methods $method: no such method; with teachers of its own: $method:SCHEDULE" ;;
    esac
done
for name in $data $splits; do
    case $name in */* | .*) die "$name: a run folder is named for it, so no / and no dot ahead" ;; esac
done

# PATH with {data}, {split} and {part} replaced, as one word.
path() { # PATH [PART]
    rest=$1 filled=''
    while :; do
        case $rest in
            *'{'*) filled=$filled${rest%%'{'*} rest=${rest#*'{'} ;;
            *) break ;;
        esac
        case $rest in
            data'}'*) filled=$filled$name ;;
            split'}'*) filled=$filled$split ;;
            part'}'*) filled=$filled${2-} ;;
            *) filled=$filled'{'; continue ;;
        esac
        rest=${rest#*'}'}
    done
    quote "$filled$rest"
}

# The recipe's flags that are not in FLAGS, then FLAGS.
recipe() { # SCRIPT FLAGS
    read_recipe "$1" "$name" || read_recipe "$1" any
    steps=$(printf %s "$steps" | tr , ' ')
    case $1 in
        train_prog_kd | train_prog_kd_anti) ;;
        *) schedule='' ;; # no option there
    esac
    case " $2 " in *' --lr-schedule cosine '* | *' --lr-schedule=cosine '*) steps='' ;; esac
    for pair in "--lr $lr" "--batch-size $batch" "--epochs $epochs" ${steps:+"--lr-steps $steps"} \
        "--wd $wd" "--eval-freq 1" ${schedule:+"--schedule $schedule"}; do
        case " $2 " in
            *" ${pair%% *} "* | *" ${pair%% *}="*) ;;
            *) printf ' %s' "$pair" ;;
        esac
    done
    printf '%s' "${2:+ $2}"
}

videos() { # the options of every script that reads videos
    printf ' --data-name %s --data-root %s --train-list %s --test-list %s --split %s' \
        "$(quote "$name")" "$(path "$data_root")" "$(path "$lists" train)" "$(path "$lists" test)" \
        "$(quote "$split")"
    printf ' --checkpoint_dir %s%s' "$(quote "$runs")" "${all_flags:+ $all_flags}"
}

folder() { quote "$runs/$name/$1/${split}_seed$2/$3"; } # METHOD SEED FILE

each_exit() { # COMMAND: call it for every data set, split, seed and method
    for name in $data; do
        for split in $splits; do
            for seed in $seeds; do
                for method in $methods; do
                    teachers=''
                    case $method in *:*) teachers=${method#*:} method=${method%%:*} ;; esac
                    "$1"
                done
            done
        done
    done
}

exits() {
    own=''
    script=train_$method
    [ -z "$teachers" ] || script=train_prog_kd own=" --method $method"
    flags="$exit_flags${teachers:+ --schedule $(quote "$teachers")}"
    printf 'job %s python %s.py%s%s%s%s --random_seed %s%s --resume\n' \
        "$(folder "$method" "$seed" result.json)" "$script" "$(videos)" "$own" \
        "${network:+ $network}${frozen_flags:+ $frozen_flags}" "$(recipe "$script" "${flags# }")" \
        "$seed" "${backbone:+ --pretrained $(path "$backbone")}"
}

logits() {
    printf 'job %s python save_logits.py%s --method %s%s --random_seed %s%s\n' \
        "$(folder "$method" "$seed" logits.pt)" "$(videos)" "$method" \
        "${network:+ $network}${frozen_flags:+ $frozen_flags}" "$seed" \
        "${backbone:+ --pretrained $(path "$backbone")}"
}

of_run() { # FILE SCRIPT FLAGS
    printf 'job %s python %s --checkpoint_dir %s --data-name %s --split %s --random_seed %s' \
        "$(folder "$method" "$seed" "$1")" "$2" "$(quote "$runs")" "$(quote "$name")" \
        "$(quote "$split")" "$seed"
    printf ' --method %s%s\n' "$method" "${3:+ $3}"
}
wise() { of_run wise.json wise_team_net_logit.py "$wise_flags"; }
all_accuracy() { of_run trade_off.csv team_net_wise_all_acc.py "$policy_flags"; }

cat <<END
#!/bin/sh
# shellcheck disable=SC1091
# Made by: $made_by
#
#     sh THIS_FILE [--dry-run] [--keep-going]                    # one job after the other
#     sh multirunner/multirunner.sh HOSTS_FILE THIS_FILE         # on several hosts
#
# A job whose result is there is skipped, so the same command goes on after an interruption.
[ -f multirunner/job.sh ] || cd "\$(dirname "\$0")/.." || exit
. multirunner/job.sh
END
if [ -z "$backbone" ]; then
    echo '# stage: backbone'
    case " $network $backbone_flags " in
        *' --fusion sum '* | *' --fusion=sum '*) kind=streams ;; # the folder that the script takes
        *) kind=team_net ;;
    esac
    for name in $data; do
        for split in $splits; do
            printf 'job %s python train_team_net.py%s%s%s --random_seed %s%s --resume\n' \
                "$(folder "$kind" "$backbone_seed" result.json)" "$(videos)" \
                "${network:+ $network}" "$(recipe train_team_net "$backbone_flags")" "$backbone_seed" \
                "${init:+ --pretrained $(path "$init")}"
        done
    done
    # Scripts that are told no backbone look in team_net/.
    [ "$kind" = team_net ] || backbone="$runs/{data}/$kind/{split}_seed$backbone_seed/best.pt"
fi
echo '# stage: bank' # a filled one takes no time
for name in $data; do
    for split in $splits; do
        n=0
        while [ "$n" -lt "$shards" ]; do
            n=$((n + 1)) shard=''
            [ "$shards" -eq 1 ] || shard=" --shard $n/$shards"
            printf 'job - python -m training.views%s%s%s%s\n' "$(videos)" \
                "${network:+ $network}${frozen_flags:+ $frozen_flags}" \
                "${backbone:+ --pretrained $(path "$backbone")}" "$shard"
        done
    done
done
echo '# stage: exits'
each_exit exits
echo '# stage: logits'
each_exit logits
echo '# stage: wise'
each_exit wise
echo '# stage: all-accuracy'
each_exit all_accuracy
echo '# stage: collect'
split=''
for name in $data; do
    printf 'job - python -m study.collect %s --out %s\n' \
        "$(quote "$runs/$name")" "$(path "$results")"
done
