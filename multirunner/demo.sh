#!/bin/sh
# The whole study on toy data, with the real scripts. What is done is skipped.
#
#     sh multirunner/demo.sh [--dry-run] [--keep-going]
#     sh multirunner/demo.sh --jobs                        # only print its job file
#
# PYTHON names the interpreter (default python3); DATA and RUNS are where things go.
set -eu
cd "$(dirname "$0")/.."
export PYTHON="${PYTHON:-python3}"
DATA=${DATA:-data/toy}
RUNS=${RUNS:-runs/demo}
# shellcheck source=multirunner/own_jobs.sh
. multirunner/own_jobs.sh

jobs() {
    sh multirunner/create_all_jobs.sh --data toy --splits split1 --seeds 1 --data-root "$DATA" \
        --lists "$DATA/{part}.txt" --runs "$RUNS" --results "$RUNS/results" --init '' \
        --network '--arch resnet18 --num_segments 3 --crop-size 64 --dropout 0.2' \
        --all-flags '--no-flip --precision auto' \
        --backbone-flags '--lr 0.004 --batch-size 8 --epochs 15 --lr-schedule cosine --warmup 2 --classifier-lr-scale 1 1 --stream-loss 0.3 --eval-freq 3' \
        --frozen-flags '--views 4' --exit-flags '--exits 1 2 3 4'
}
case ${1-} in
    --jobs) jobs; exit ;;
esac
made=$(jobs)
[ -f "$DATA/test.txt" ] || is_dry_run || "$PYTHON" -m dataset_team.toy "$DATA"
run_made "$@"
! is_dry_run || exit 0

set -- # three test videos of different classes
for line in 1 30 60; do
    set -- "$@" "$DATA/$(sed -n "${line}p" "$DATA/test.txt" | cut -d' ' -f1)"
done
run=$RUNS/toy/prog_kd/split1_seed1
echo "+ $PYTHON predict.py --checkpoint $run VIDEO..."
"$PYTHON" predict.py --precision auto --top 2 --checkpoint "$run" --show "$RUNS/pictures" "$@"
