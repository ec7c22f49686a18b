#!/bin/sh
# What each option of fine-tuning brings on held-out videos: three MobileNetV2 streams, each trained alone
# on small crops, with one option changed at a time; then streams joined in different ways. Writes
# results/ucf101_7_mobilenet/tuning.csv. Test videos choose nothing. What is done is skipped.
#
#     WEIGHTS=folder sh multirunner/ucf101_7_tuning.sh [--dry-run] [--keep-going]
#     sh multirunner/ucf101_7_tuning.sh --jobs > jobs.sh          # for multirunner.sh or for one row
#
# NAMES picks some variants: NAMES='base partial-bn'. WEIGHTS, DATA, PYTHON, SPLITS, FLAGS as in
# ucf101_7_mobilenet.sh; RUNS is runs/tuning. Six minutes of one core each.
set -eu
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/tuning}
RESULTS=${RESULTS:-results/ucf101_7_mobilenet}
# shellcheck source=multirunner/ucf101_7_common.sh
. multirunner/ucf101_7_common.sh
need_plain DATA RUNS RESULTS WEIGHTS
RECIPE='--lr 0.005 --batch-size 16 --wd 5e-4 --lr-schedule cosine --nesterov --classifier-lr-scale 1 1 --train-segments 3 --eval-freq 8 --select-on last'
ALONE="--epochs 8 --warmup 1 --fusion sum${WEIGHTS:+ --weights-dir $WEIGHTS}"
JOINED='--epochs 3 --depth-lr-scale 0.5'

# NAME, where it starts, and what it changes: a later flag wins.
variants() {
    while read -r name init flags; do
        case " ${NAMES:-$name} " in
            *" $name "*) printf '%s %s %s\n' "$name" "$init" "$flags" ;;
        esac
    done <<END
base imagenet $ALONE
frozen-start imagenet $ALONE --freeze stem layer1 layer2
frozen-features imagenet $ALONE --freeze iframe mv residual
partial-bn imagenet $ALONE --partial-bn
depth-lr imagenet $ALONE --depth-lr-scale 0.7
step imagenet $ALONE --lr-schedule step --warmup 0 --lr-steps 5 7
no-warmup imagenet $ALONE --warmup 0
classifier-lr imagenet $ALONE --classifier-lr-scale 5 10
ema imagenet $ALONE --ema 0.95
label-smoothing imagenet $ALONE --label-smoothing 0.1
mixup imagenet $ALONE --mixup 0.4
photometric imagenet $ALONE --photometric 0.4
no-dropout imagenet $ALONE --dropout 0
together imagenet ${ALONE%--fusion sum*}${ALONE#*--fusion sum}
together-stream-loss imagenet ${ALONE%--fusion sum*}${ALONE#*--fusion sum} --stream-loss 1
joined-team base $JOINED --fusion team --stream-loss 1
joined base $JOINED --fusion neutral-team --stream-loss 1
joined-no-stream-loss base $JOINED --fusion neutral-team
joined-frozen base $JOINED --fusion neutral-team --stream-loss 1 --freeze iframe mv residual
END
}

jobs() {
    echo '. multirunner/job.sh'
    stage=''
    variants | while read -r name init flags; do
        [ "$stage" = "from_$init" ] || { stage=from_$init; echo "# stage: $stage"; }
        [ "$init" = imagenet ] || init="$RUNS/$init/{data}/streams/{split}_seed1/best.pt"
        # shellcheck disable=SC2016 # $d is sed's
        filtered '1,/^# stage: backbone/d; /^# stage: bank/,$d' \
            create_jobs "$RUNS/$name" --init "$init" --backbone-flags "$RECIPE $flags" \
            --network '--arch mobilenet_v2 --motion-arch mobilenet_v2 --num_segments 4 --crop-size 96 --dropout 0.5' \
            --all-flags "--precision auto${FLAGS:+ $FLAGS}"
    done
    echo '# stage: collect'
    echo "job - python -m study.variants $RUNS --out $RESULTS/tuning.csv"
}
case ${1-} in
    --jobs) jobs; exit ;;
esac
made=$(jobs)
run_made "$@"
