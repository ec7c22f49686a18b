#!/bin/sh
# The whole study on toy data, with the real scripts: backbone, four kinds of exits, logits, WISE,
# thresholds, tables. What is there already is reused.
#
#     sh multirunner/demo.sh [--dry-run]
#
# PYTHON names the interpreter (default python3); DATA and RUNS are where things go.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DATA=${DATA:-data/toy}
RUNS=${RUNS:-runs/demo}
dry_run=${1:-}

run() {
    echo "+ $*"
    [ "$dry_run" = --dry-run ] || "$@"
}

[ -f "$DATA/test.txt" ] || run "$PYTHON" -m dataset_team.toy "$DATA"

data() { # the options every script shares
    set -- "$@" --data-name toy --data-root "$DATA" --train-list "$DATA/train.txt"
    set -- "$@" --test-list "$DATA/test.txt" --no-flip --checkpoint_dir "$RUNS"
    run "$@"
}

data "$PYTHON" train_team_net.py --arch resnet18 --num_segments 3 --crop-size 64 --epochs 15 \
    --batch-size 8 --lr 0.004 --lr-schedule cosine --warmup 2 --classifier-lr-scale 1 1 \
    --dropout 0.2 --stream-loss 0.3 --eval-freq 3 --precision bf16 --resume

for script in train_team_ce train_prog_kd train_prog_kd_anti train_i_frame; do
    data "$PYTHON" $script.py --exits 1 2 3 4 --views 4 --precision bf16 --resume
done

for method in team_ce prog_kd prog_kd_anti i_frame; do
    folder=$RUNS/toy/$method/split1_seed1
    [ ! -f "$folder/trade_off.csv" ] || continue # written last
    data "$PYTHON" save_logits.py --method $method --views 4 --precision bf16
    run "$PYTHON" wise_team_net_logit.py --logits "$folder/logits.pt"
    run "$PYTHON" team_net_wise_all_acc.py --logits "$folder/logits.pt"
done

run "$PYTHON" -m early_exit.collect "$RUNS" --out "$RUNS/results"
