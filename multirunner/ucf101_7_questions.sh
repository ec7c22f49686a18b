#!/bin/sh
# Questions that the study of ucf101_7.sh leaves open. On its backbones, exits are trained at equal
# budgets, by other teachers, with the epoch chosen on held-out videos, on other crops, by other
# recipes, and in fp32; then exits on backbones trained longer, with and without mixup. Writes paired
# differences with intervals into results/ucf101_7/comparisons/, one CSV file per question. What is
# done is skipped.
#
#     sh multirunner/ucf101_7.sh && sh multirunner/ucf101_7_questions.sh [--dry-run] [--keep-going]
#
# PYTHON, DATA, RUNS, RESULTS and SPLITS as in ucf101_7.sh.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=multirunner/ucf101_7_common.sh
. multirunner/ucf101_7_common.sh
need_plain RUNS
for word; do
    case $word in
        --dry-run | --keep-going) ;;
        *) echo "usage: sh $0 [--dry-run] [--keep-going]" >&2; exit 2 ;;
    esac
done
BACKBONE="$RUNS/{data}/team_net/{split}_seed1/best.pt"
last='--select-on last' bank="--cache-dir $RUNS/ucf101_7/views"

# Run the jobs of a job file up to the logits: WISE is fitted where it is compared.
run() { # OPTIONS_OF_CREATE_JOBS...
    # shellcheck disable=SC2016 # $d is sed's
    made=$(filtered '/^# stage: wise/,$d' create_jobs "$@")
    # shellcheck disable=SC2086 # two words at most
    attempt run_made $options
}

# Exits on the study's backbones.
exits() { # NAME METHODS FROZEN_FLAGS
    run "$RUNS/$1" --backbone "$BACKBONE" --methods "$2" --frozen-flags "--views 10 $3"
}

# Backbones trained on from the study's for 16 epochs, and exits on them.
longer() { # NAME BACKBONE_FLAGS
    run "$RUNS/$1" --init "$BACKBONE" --methods 'team_ce prog_kd' \
        --frozen-flags "--views 10 $last" \
        --backbone-flags "--lr 0.005 --epochs 16 --warmup 1 $backbone_flags${2:+ $2}"
}

# The exits of $RUNS once more, with the backbone in fp32.
fp32() {
    for run in "$RUNS"/ucf101_7/prog_kd/*_seed*; do
        [ -f "$run/best.pt" ] || continue # its comparison will say so
        folder=$RUNS/fp32/ucf101_7/prog_kd/${run##*/}
        [ ! -f "$folder/logits.pt" ] || continue
        split=${run##*/}
        seed=${split##*_seed} split=${split%_seed*}
        mkdir -p "$folder"
        cp "$run/best.pt" "$folder"
        attempt "$PYTHON" save_logits.py --data-name ucf101_7 --data-root "$DATA" \
            --train-list "$DATA/ucf101_7_${split}_train.txt" \
            --test-list "$DATA/ucf101_7_${split}_test.txt" --split "$split" \
            --checkpoint_dir "$RUNS/fp32" --precision fp32 --method prog_kd --views 0 \
            --select-on last --random_seed "$seed" \
            --pretrained "$RUNS/ucf101_7/team_net/${split}_seed1/best.pt"
    done
}

compare() { # NAME WORDS...
    name=$1
    shift
    attempt "$PYTHON" -m study.compare "$@" --resample group --out "$RESULTS/comparisons/$name.csv"
}

# The published budget of PKD (40 epochs, lr .01, batches of 64) for all; PKD itself is in $RUNS.
exits equal 'ce_equal:labels anti_equal:iframe:15,residual:10,mv i_frame_equal:iframe fused_equal:fused reversed:iframe:3,residual:3,mv measured:weakest:3,middle:3,strongest' \
    "$last $bank"
exits chosen 'team_ce prog_kd' "$bank"
exits independent-crops 'team_ce prog_kd' "$last --independent-crops"
longer longer ''
longer mixup '--mixup 0.4'
! is_dry_run || exit 0
fp32

main=$RUNS/ucf101_7 equal=$RUNS/equal/ucf101_7
compare published "$main" --pair prog_kd/vanilla team_ce/vanilla \
    --pair prog_kd/vanilla prog_kd_anti/vanilla --pair prog_kd/vanilla i_frame/vanilla \
    --pair prog_kd/wise team_ce/wise
compare equal "$main" "$equal" --pair prog_kd/vanilla ce_equal/vanilla \
    --pair prog_kd/vanilla anti_equal/vanilla --pair prog_kd/vanilla i_frame_equal/vanilla \
    --pair prog_kd/vanilla reversed/vanilla --pair measured/vanilla prog_kd/vanilla \
    --pair measured/vanilla ce_equal/vanilla --pair fused_equal/vanilla ce_equal/vanilla \
    --pair prog_kd/vanilla fused_equal/vanilla
compare wise "$main" --pair prog_kd/wise prog_kd/vanilla --pair team_ce/wise team_ce/vanilla \
    --pair prog_kd/wise prog_kd/constant --pair team_ce/wise team_ce/constant \
    --pair prog_kd/wise prog_kd/wise:heldout:sgd --pair team_ce/wise team_ce/wise:heldout:sgd \
    --pair prog_kd/wise:train_views prog_kd/vanilla --pair team_ce/wise:train_views team_ce/vanilla \
    --pair prog_kd/wise prog_kd/wise:train_views --pair team_ce/wise team_ce/wise:train_views
compare streams "$main" --pair prog_kd/iframe+mv+residual prog_kd/iframe \
    --pair prog_kd/iframe+mv+residual prog_kd/mv --pair prog_kd/iframe+mv+residual prog_kd/residual \
    --pair prog_kd/iframe+mv+residual prog_kd/iframe+mv \
    --pair prog_kd/iframe+mv+residual prog_kd/iframe+residual \
    --pair prog_kd/iframe+mv+residual prog_kd/mv+residual
for other in chosen independent-crops; do
    compare "$other" "$RUNS/$other/ucf101_7" --against "$main" \
        --pair team_ce/vanilla team_ce/vanilla --pair prog_kd/vanilla prog_kd/vanilla
done
for other in longer mixup; do
    compare "$other" "$RUNS/$other/ucf101_7" --against "$main" \
        --pair prog_kd/iframe+mv+residual prog_kd/iframe+mv+residual --pair prog_kd/iframe prog_kd/iframe \
        --pair prog_kd/mv prog_kd/mv --pair prog_kd/residual prog_kd/residual \
        --pair team_ce/vanilla team_ce/vanilla --pair prog_kd/vanilla prog_kd/vanilla
done
compare mixup_to_longer "$RUNS/mixup/ucf101_7" --against "$RUNS/longer/ucf101_7" \
    --pair prog_kd/iframe+mv+residual prog_kd/iframe+mv+residual --pair prog_kd/iframe prog_kd/iframe \
    --pair prog_kd/mv prog_kd/mv --pair prog_kd/residual prog_kd/residual
compare fp32 "$RUNS/fp32/ucf101_7" --against "$main" --pair prog_kd/vanilla prog_kd/vanilla
recipes() { # FOLDER_OF_RUNS NAME WORDS...
    views=$1/views out=$RESULTS/$2.csv
    shift 2
    # shellcheck disable=SC2086
    attempt "$PYTHON" -m benchmarks.recipes "$views" --splits $SPLITS --out "$out" "$@"
}
recipes "$main" recipes
for other in longer mixup; do
    recipes "$RUNS/$other/ucf101_7" "recipes_$other" \
        --recipes CE PKD 'iframe alone' 'mv alone' 'residual alone' fused 'labels + fused'
done
[ "$failed" -eq 0 ]
