#!/bin/sh
# The study on seven real classes of UCF-101, split 1: re-encoding, backbone from scratch, four kinds
# of exits with three seeds, logits, WISE, thresholds; tables into results/. What is done is skipped.
#
#     VIDEOS=path/to/ucf101_7 sh multirunner/ucf101_7.sh [--dry-run]
#
# VIDEOS holds the AVI files and the list files ucf101_7_split1_train.txt, ..._test.txt. PYTHON names
# the interpreter (default python3), DATA and RUNS are where re-encoded videos and runs go.
set -eu
cd "$(dirname "$0")/.."
: "${VIDEOS:?name the folder of the AVI files: VIDEOS=path sh $0}"
PYTHON=${PYTHON:-python3}
DATA=${DATA:-data/ucf101_7}
RUNS=${RUNS:-runs}
dry_run=${1:-}

run() {
    echo "+ $*"
    [ "$dry_run" = --dry-run ] || "$@"
}

run "$PYTHON" -m coviar.reencode "$VIDEOS" "$DATA"

data() { # the options every script shares
    set -- "$@" --data-name ucf101_7 --data-root "$DATA" --checkpoint_dir "$RUNS" --precision bf16
    set -- "$@" --train-list "$VIDEOS/ucf101_7_split1_train.txt"
    set -- "$@" --test-list "$VIDEOS/ucf101_7_split1_test.txt" --split split1
    run "$@"
}

data "$PYTHON" train_team_net.py --arch resnet18 --num_segments 4 --crop-size 112 --epochs 48 \
    --batch-size 8 --lr 0.01 --lr-schedule cosine --warmup 3 --classifier-lr-scale 1 1 \
    --stream-loss 1 --wd 5e-4 --eval-freq 2 --resume

for seed in 1 736 4711; do
    for script in train_team_ce train_prog_kd train_prog_kd_anti train_i_frame; do
        data "$PYTHON" $script.py --exits 1 2 3 4 --random_seed $seed --resume
    done
    for method in team_ce prog_kd prog_kd_anti i_frame; do
        folder=$RUNS/ucf101_7/$method/split1_seed$seed
        [ ! -f "$folder/trade_off.csv" ] || continue # written last
        data "$PYTHON" save_logits.py --method $method --random_seed $seed
        run "$PYTHON" wise_team_net_logit.py --logits "$folder/logits.pt"
        run "$PYTHON" team_net_wise_all_acc.py --logits "$folder/logits.pt"
    done
done

out=results/ucf101_7
run "$PYTHON" -m early_exit.collect "$RUNS/ucf101_7" --out $out
run cp "$RUNS/ucf101_7/team_net/split1_seed1/log.jsonl" $out/backbone_log.jsonl
