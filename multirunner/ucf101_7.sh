#!/bin/sh
# The study on seven real classes of UCF-101. Re-encodes the videos, then runs its job file (--jobs
# prints it): backbones from scratch (the epoch that is best on held-out videos), exits with three
# seeds (the last epoch, since held-out videos are for WISE and thresholds), logits, WISE,
# thresholds, tables into results/. What is done is skipped. Next is ucf101_7_questions.sh.
#
#     VIDEOS=path/to/ucf101_7 sh multirunner/ucf101_7.sh [--dry-run] [--keep-going]
#     VIDEOS=path/to/ucf101_7 sh multirunner/ucf101_7.sh --prepare   # only re-encode: for hosts
#     sh multirunner/ucf101_7.sh --jobs > multirunner/ucf101_7_jobs.sh
#
# VIDEOS holds the AVI files and the list files ucf101_7_split1_train.txt, ..._test.txt. PYTHON names
# the interpreter (default python3); DATA and RUNS are where videos and runs go.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=multirunner/ucf101_7_common.sh
. multirunner/ucf101_7_common.sh

jobs() {
    create_jobs "$RUNS" --results "$RESULTS" --init '' \
        --backbone-flags "--lr 0.01 --epochs 48 --warmup 3 $backbone_flags" \
        --frozen-flags '--views 10 --select-on last'
}
case ${1-} in
    --jobs) jobs; exit ;;
esac
made=$(jobs)
if ! is_dry_run; then
    : "${VIDEOS:?name the folder of the AVI files: VIDEOS=path sh $0}"
    "$PYTHON" -m coviar.reencode "$VIDEOS" "$DATA"
    cp "$VIDEOS"/ucf101_7_split*.txt "$DATA"
fi
[ "$options" != --prepare ] || exit 0
run_made "$@"
! is_dry_run || exit 0

mkdir -p "$RESULTS/logs"
for split in $SPLITS; do
    cp "$RUNS/ucf101_7/team_net/${split}_seed1/log.jsonl" "$RESULTS/logs/team_net_$split.jsonl"
done
