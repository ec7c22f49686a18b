# shellcheck shell=sh
# What the scripts ucf101_7*.sh share; they source it.

# shellcheck source=multirunner/own_jobs.sh
. multirunner/own_jobs.sh

export PYTHON="${PYTHON:-python3}"
DATA=${DATA:-data/ucf101_7}
RUNS=${RUNS:-runs}
RESULTS=${RESULTS:-results/ucf101_7}
SPLITS=${SPLITS:-split1 split2 split3}

# Of every backbone of this study.
# shellcheck disable=SC2034
backbone_flags='--batch-size 8 --lr-schedule cosine --classifier-lr-scale 1 1 --stream-loss 1 --wd 5e-4 --eval-freq 2'

# The job file of runs below a folder, with the study's data, network and exits.
create_jobs() { # FOLDER OPTIONS_OF_CREATE_ALL_JOBS...
    folder=$1
    shift
    sh multirunner/create_all_jobs.sh --data ucf101_7 --splits "$SPLITS" --data-root "$DATA" \
        --lists "$DATA/{data}_{split}_{part}.txt" --runs "$folder" \
        --network '--arch resnet18 --num_segments 4 --crop-size 112 --dropout 0.5' \
        --all-flags '--precision auto' --exit-flags '--exits 1 2 3 4' "$@"
}
