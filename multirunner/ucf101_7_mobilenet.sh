#!/bin/sh
# The study of ucf101_7.sh on pretrained streams: three MobileNetV2 with ImageNet weights, each trained
# alone, then joined by TEAM blocks and fine-tuned; exits on them; and the probe on I-frames, the
# baseline. One split after the other. What is done is skipped, so the same command goes on. --all: the
# streams and the network once more, of all training videos: the recipe was chosen on held-out ones.
#
#     WEIGHTS=folder sh multirunner/ucf101_7_mobilenet.sh [--dry-run] [--keep-going]
#     WEIGHTS=folder sh multirunner/ucf101_7_mobilenet.sh --all [--dry-run] [--keep-going]
#     sh multirunner/ucf101_7_mobilenet.sh --jobs > jobs.sh       # of all, for multirunner.sh or for one row
#
# WEIGHTS is the --weights-dir of mobilenet_v2-b0353104.pth (without: torch's hub cache). DATA (re-encoded
# videos and lists, as by ucf101_7.sh --prepare), PYTHON and SPLITS as in ucf101_7.sh; RUNS is
# runs/mobilenet, RESULTS results/ucf101_7_mobilenet. FLAGS are added to all commands that read videos.
set -eu
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/mobilenet}
RESULTS=${RESULTS:-results/ucf101_7_mobilenet}
# shellcheck source=multirunner/ucf101_7_common.sh
. multirunner/ucf101_7_common.sh
need_plain DATA RUNS RESULTS WEIGHTS
WEIGHTS=${WEIGHTS:+--weights-dir $WEIGHTS}
SIZE='--num_segments 8 --crop-size 132'  # 3 GMACs a video
# Held-out videos are for WISE and thresholds: epochs are fixed.
RECIPE='--lr 0.005 --batch-size 16 --wd 5e-4 --lr-schedule cosine --nesterov --classifier-lr-scale 1 1 --train-segments 3 --label-smoothing 0.1 --eval-freq 4 --select-on last'

jobs_of() { # OPTIONS_OF_CREATE_ALL_JOBS...
    create_jobs "$RUNS" --results "$RESULTS" --methods 'team_ce prog_kd' \
        --network "--arch mobilenet_v2 --motion-arch mobilenet_v2 $SIZE --dropout 0.5" \
        --all-flags "--precision auto${FLAGS:+ $FLAGS}" --frozen-flags '--views 4 --select-on last' "$@"
}

# shellcheck disable=SC2016 # $d is sed's
alone() {
    filtered 's/^# stage: backbone/# stage: streams/; /^# stage: bank/,$d' jobs_of --init imagenet \
        --backbone-flags "$RECIPE --epochs 12 --warmup 1 --fusion sum --freeze iframe.stem iframe.layer1 iframe.layer2${WEIGHTS:+ $WEIGHTS}"
}

joined() {
    filtered '1,/job.sh$/d' jobs_of --init "$RUNS/{data}/streams/{split}_seed1/best.pt" \
        --backbone-flags "$RECIPE --epochs 4 --fusion neutral-team --depth-lr-scale 0.5 --stream-loss 1"
}

probes() {
    for split in $SPLITS; do
        echo "job $RUNS/ucf101_7/i_frame_probe/${split}_seed1/result.json python train_i_frame_probe.py" \
            "--data-name ucf101_7 --data-root $DATA --train-list $DATA/ucf101_7_${split}_train.txt" \
            "--test-list $DATA/ucf101_7_${split}_test.txt --split $split --checkpoint_dir $RUNS" \
            "--precision auto --arch mobilenet_v2 $SIZE${WEIGHTS:+ $WEIGHTS}${FLAGS:+ $FLAGS} --resume"
    done
}

jobs() {
    alone
    probes
    joined
}

# shellcheck disable=SC2016
of_all_videos() {
    RUNS=$RUNS/all RECIPE="$RECIPE --heldout 0"
    alone
    filtered '/^# stage: bank/,$d' joined
}

case ${1-} in
    --jobs) jobs; exit ;;
    --all) shift && part="of_all_videos" ;;
    *) part="jobs" ;;
esac
for split in $SPLITS; do
    made=$(SPLITS=$split; $part)
    attempt run_made "$@"
done
[ "$failed" -eq 0 ]
