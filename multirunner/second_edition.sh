#!/bin/sh
# The second edition of the study, by results/PROTOCOL.md: two data sets, three splits, three
# backbones each, exits by every method. What is done is skipped, so the same command goes on.
#
#     VIDEOS=../shared/videos sh multirunner/second_edition.sh --prepare     # needs the command ffmpeg
#     WEIGHTS=folder sh multirunner/second_edition.sh [--dry-run] [--keep-going]
#     WEIGHTS=folder sh multirunner/second_edition.sh --pools [--dry-run] [--keep-going]
#     sh multirunner/second_edition.sh --tables [--keep-going]    # of units with all rows, into RESULTS
#     sh multirunner/second_edition.sh --jobs > jobs.sh        # of all but --pools, for multirunner.sh or for one row
#
# --pools is question 3: backbones of half of the training videos, exits with few and with wrong labels.
# A backbone of a split is a unit. Its rows, in RESULTS/SET/SPLIT/backboneN (question 3: RESULTS/few_labels/...),
# are all that --tables reads, so a unit with all its rows is skipped even where its runs are gone. They come there
# together, when all have been made.
#
# VIDEOS holds ucf101_7, ucf101_6 and jhmdb_21. WEIGHTS is the --weights-dir of mobilenet_v2-b0353104.pth
# (without: torch's hub cache). DATA (data), RUNS (runs/second), RESULTS (results), FIGURES (figures), PYTHON; and,
# to do a part, SETS='ucf101_13 jhmdb_21', SPLITS='split1 split2 split3', BACKBONES='1 2 3' (their seeds). Tables
# are always of all. FLAGS are added to all commands that read videos. Minutes of one core, with AVX-512 and
# AMX / with AVX2: a backbone 17 / 28, its bank 3 to 6, exits and all that follows 15, most of them for starting
# 156 processes, flatness 10.
set -eu
cd "$(dirname "$0")/.."
parts=${SETS+ SETS}${SPLITS+ SPLITS}${BACKBONES+ BACKBONES}
PYTHON=${PYTHON:-python3} DATA=${DATA:-data} RUNS=${RUNS:-runs/second} RESULTS=${RESULTS:-results}
FIGURES=${FIGURES:-figures}
SETS=${SETS:-ucf101_13 jhmdb_21} SPLITS=${SPLITS:-split1 split2 split3} BACKBONES=${BACKBONES:-1 2 3}
# shellcheck source=multirunner/own_jobs.sh
. multirunner/own_jobs.sh
need_plain DATA RUNS RESULTS FIGURES WEIGHTS
WEIGHTS=${WEIGHTS:+ --weights-dir $WEIGHTS}
export PYTHON
RECIPE='--lr 0.005 --batch-size 16 --epochs 12 --wd 5e-4 --lr-schedule cosine --warmup 1 --nesterov --classifier-lr-scale 1 1 --train-segments 3 --freeze iframe.stem iframe.layer1 iframe.layer2 --label-smoothing 0.1 --fusion sum --eval-freq 12 --select-on last'
METHODS='team_ce ce_equal:labels prog_kd prog_kd_anti anti_equal:iframe:15,residual:10,mv i_frame_equal:iframe fused_equal:fused mv_residual_iframe:mv:3,residual:3,iframe mv_iframe_residual:mv:3,iframe:3,residual residual_mv_iframe:residual:3,mv:3,iframe residual_iframe_mv:residual:3,iframe:3,mv iframe_mv_residual:iframe:3,mv:3,residual iframe_residual_mv:iframe:3,residual:3,mv'

PAIRS='--pair prog_kd/vanilla team_ce/vanilla --pair ce_equal/vanilla anti_equal/vanilla --pair i_frame_equal/vanilla fused_equal/vanilla --pair prog_kd/wise:train_views prog_kd/wise --pair prog_kd/constant prog_kd/vanilla'
for order in mv_iframe_residual residual_mv_iframe residual_iframe_mv iframe_mv_residual iframe_residual_mv; do
    PAIRS="$PAIRS --pair mv_residual_iframe/vanilla $order/vanilla"
done

# The AVI files of $1, below $2, as ucf101_6 was made.
encode_like_ucf101_6() {
    find "$1" -name '*.avi' | sort | while read -r video; do
        name=${video#"$1"/}
        out=$2/${name%.avi}.mp4
        [ ! -f "$out" ] || continue
        mkdir -p "$(dirname "$out")"
        ffmpeg -nostdin -v error -y -i "$video" -an -vf 'setpts=N/FRAME_RATE/TB' -c:v libx264 -preset medium \
            -crf 32 -threads 1 -pix_fmt yuv420p -map_metadata -1 -fflags +bitexact -flags:v +bitexact \
            -f mp4 "$out.part"
        mv "$out.part" "$out"
    done
}

prepare() {
    : "${VIDEOS:?name the folder of ucf101_7, ucf101_6 and jhmdb_21: VIDEOS=path sh $0 --prepare}"
    for set in ucf101_7 ucf101_6 jhmdb_21; do
        [ -d "$VIDEOS/$set" ] || { echo "$0: VIDEOS=$VIDEOS has no folder $set" >&2; exit 2; }
    done
    encode_like_ucf101_6 "$VIDEOS/ucf101_7" "$DATA/ucf101_13_sources"
    (cd "$VIDEOS/ucf101_6" && find . -name '*.mp4' | sort) | while read -r name; do
        mkdir -p "$(dirname "$DATA/ucf101_13_sources/$name")"
        cp "$VIDEOS/ucf101_6/$name" "$DATA/ucf101_13_sources/$name"
    done
    "$PYTHON" -m coviar.reencode "$DATA/ucf101_13_sources" "$DATA/ucf101_13"
    "$PYTHON" -m coviar.reencode "$VIDEOS/jhmdb_21" "$DATA/jhmdb_21"
    for split in split1 split2 split3; do
        for part in train test; do
            {
                cat "$VIDEOS/ucf101_7/ucf101_7_${split}_$part.txt"
                awk '{ print $1, $2, $3 + 7 }' "$VIDEOS/ucf101_6/ucf101_6_${split}_$part.txt"
            } >"$DATA/ucf101_13/ucf101_13_${split}_$part.txt"
        done
    done
    awk '{ print $1 "," $2 }' "$VIDEOS/jhmdb_21/jhmdb_21_groups.txt" >"$DATA/jhmdb_21/groups.csv"
    "$PYTHON" -m dataset_team.lists folders "$DATA/jhmdb_21" "$DATA/jhmdb_21" --folds 3 \
        --group-csv "$DATA/jhmdb_21/groups.csv"
    rm "$DATA/jhmdb_21/recordings.csv" # by the protocol names tell what is held out
    for list in "$DATA"/jhmdb_21/split?_*.txt; do
        mv "$list" "$DATA/jhmdb_21/jhmdb_21_${list##*/}"
    done
    for list in "$DATA"/ucf101_13/*_train.txt "$DATA"/jhmdb_21/*_train.txt; do
        "$PYTHON" -m dataset_team.lists pools "$list" "$(dirname "$list")" --data-root "$(dirname "$list")"
    done
}

# T and pixels of a data set.
size_of() {
    case $1 in
        jhmdb_21) echo '--num_segments 4 --crop-size 112' ;;
        *) echo '--num_segments 8 --crop-size 112' ;;
    esac
}

# Of one $set, $split and $backbone: where its rows are made, below its $runs, and where they are when all have been.
made_rows() { echo "$runs/rows/$set"; }
study_of() { echo "$RESULTS/$set/$split/backbone$backbone"; }

# recordings.csv says that a unit has all its rows: it is copied last, and whole. A row that is missing is a failure.
copy_rows() { # FROM TO NAME...
    from=$1 to=$2
    shift 2
    echo "job $to/recordings.csv sh -c 'cp$(printf " $from/%s.csv" "$@") $to &&" \
        "cp $from/recordings.csv $to/.copy && mv $to/.copy $to/recordings.csv'"
}

jobs_of() { # OPTIONS_OF_CREATE_ALL_JOBS...
    sh multirunner/create_all_jobs.sh --data "$set" --splits "$split" --data-root "$DATA/{data}" \
        --lists "$DATA/{data}/{data}_{split}_{part}.txt" --runs "$runs" --results "$(made_rows)" \
        --methods "$METHODS" \
        --network "--arch mobilenet_v2 --motion-arch mobilenet_v2 $(size_of "$set") --dropout 0.5" \
        --all-flags "--precision auto${FLAGS:+ $FLAGS}" "$@"
}

streams() {
    # shellcheck disable=SC2016 # $d is sed's
    filtered '1,/job.sh$/d; /^# stage: bank/,$d' jobs_of --init imagenet \
        --backbone-seed "$backbone" --backbone-flags "$RECIPE$WEIGHTS"
}

exits() {
    filtered '1,/job.sh$/d; /python -m training.views/s/ --per-segment//; /python train_/s/ --per-segment//' \
        jobs_of --backbone "$runs/{data}/streams/{split}_seed$backbone/best.pt" \
        --frozen-flags '--views 4 --select-on last --per-segment' --exit-flags '--exits 1 2 3 4 --ic-pool mean' \
        --wise-flags '--fit-on train_views' --policy-flags '--max-drop 1 --guarantee 0.9'
}

data_of() { # LIST: train, or train_pool1 where a network learns from half of it
    echo "--data-name $set --data-root $DATA/$set --train-list $DATA/$set/${set}_${split}_$1.txt" \
        "--test-list $DATA/$set/${set}_${split}_test.txt --split $split"
}

probe() { # FOLDER [OPTION...]: the last of an option counts
    folder=$1
    shift
    echo "job $folder/$set/i_frame_probe/${split}_seed1/result.json python train_i_frame_probe.py" \
        "$(data_of train) --checkpoint_dir $folder --precision auto --arch mobilenet_v2" \
        "$(size_of "$set")${*:+ $*}$WEIGHTS${FLAGS:+ $FLAGS} --resume"
}

probes() { # once for a split: on all frames, and on fewer
    probe "$runs"
    fewer=''
    for frames in 1 2 4; do
        case $(size_of "$set") in "--num_segments $frames "*) continue ;; esac
        probe "$RUNS/probes/$frames" "--num_segments $frames"
        fewer="$fewer $RUNS/probes/$frames/$set/i_frame_probe/${split}_seed1"
    done
}

# What comes after study.collect.
rows() {
    study=$(made_rows)
    kd=$runs/$set/prog_kd/${split}_seed ce=$runs/$set/team_ce/${split}_seed
    names='backbones choices curves drops exits flatness points runs weights'
    echo '# stage: rows'
    if [ "$backbone" = 1 ]; then
        names="$names probes"
        echo "job - python -m study.probes$fewer --out $study/probes.csv"
    fi
    echo "job - python -m study.flatness $runs/$set/streams/${split}_seed$backbone/best.pt" \
        "$(data_of train) --random_seed $backbone" \
        "--segments 2${FLAGS:+ $FLAGS} --out $study/flatness.csv"
    echo "job - python -m study.over_time ${kd}1 --out $study --figures $RUNS/figures/$set/$split/backbone$backbone"
    if [ "$set" = ucf101_13 ]; then # whether the encoder of ucf101_7's or of ucf101_6's classes shows
        names="$names confusions"
        echo "job - python -m study.confusions ${kd}1 --first 7 --out $study/confusions.csv"
    fi
    timings=$RESULTS/$set/timings.csv
    [ -f "$timings" ] && timings=" --timings $timings" || timings=
    echo "job - python -m study.drops ${kd}1 ${kd}736 ${kd}4711 ${ce}1 ${ce}736 ${ce}4711 --drops 1 2 5" \
        "--guarantee 0.9 --route streams_then_time$timings --out $study/drops.csv"
    echo "job - python -m study.compare $runs/$set $PAIRS --resample backbone" \
        "--recordings $study/recordings.csv"
    echo '# stage: recordings'
    # shellcheck disable=SC2086 # names are words
    copy_rows "$study" "$(study_of)" $names
}

# Of one unit, whose seed its exits do not have. Nothing is held out: half of jhmdb_21 has classes whose
# every group has clips of other classes too.
pools() {
    runs=$RUNS/pools/$split/backbone$backbone
    (RECIPE="$RECIPE --heldout 0"; filtered 's/_train.txt /_train_pool1.txt /' streams)
    echo "job - python -m study.few_labels $(data_of train_pool1)" \
        "--unlabelled $DATA/$set/${set}_${split}_train_pool2.txt" \
        "--pretrained $runs/$set/streams/${split}_seed$backbone/best.pt --checkpoint_dir $runs" \
        "--precision auto --views 4 --select-on last --heldout 0 --exits 1 2 3 4 --ic-pool mean${FLAGS:+ $FLAGS}" \
        "--out $runs/$set/few_labels"
    copy_rows "$runs/$set/few_labels" "$RESULTS/few_labels/$set/$split/backbone$backbone" cases
}

# The jobs of one unit, by what makes them; of a unit with all its rows none, but for `all`. With --keep-going
# its last job, which says that all rows are there, runs only if none of the unit's jobs failed.
unit() { # jobs_of_unit FOLDER_OF_ROWS
    if [ "$wanted" = all ]; then
        "$1"
    elif [ -f "$2/recordings.csv" ]; then
        echo "# $2 has all rows"
    else
        # shellcheck disable=SC2016 # both are variables of the job file
        echo 'failed_before=$failed'
        # shellcheck disable=SC2016
        filtered '/^job [^ ]*recordings.csv /s/^/[ "$failed" -gt "$failed_before" ] || /' "$1"
    fi
}

jobs_of_unit() {
    runs=$RUNS/$split/backbone$backbone
    streams
    [ "$backbone" != 1 ] || probes
    exits
    rows
}

jobs() { # of, wanted
    echo '. multirunner/job.sh'
    wanted=$2
    for backbone in $BACKBONES; do
        for set in $SETS; do
            for split in $SPLITS; do
                if [ "$1" = pools ]; then
                    unit pools "$RESULTS/few_labels/$set/$split/backbone$backbone"
                else
                    unit jobs_of_unit "$(study_of)"
                fi
            done
        done
    done
}

# The folders of units that have all rows, a blank before each.
whole_units() { # FOLDER
    for file in "$1"/split*/backbone*/recordings.csv; do
        [ ! -f "$file" ] || printf ' %s' "${file%/*}"
    done
}

of_each() { # NAME UNIT...: the file of that name of each, likewise
    name=$1
    shift
    printf " %s/$name" "$@"
}

# The answers, of all units that have all rows.
tables() {
    [ -z "$parts" ] || { echo "$0: --tables are of all units, not of a part: without$parts" >&2; exit 2; }
    echo '. multirunner/job.sh'
    compared='' sets=0
    for set in $SETS; do
        results=$RESULTS/$set
        studies=$(whole_units "$results")
        [ -n "$studies" ] || continue
        sets=$((sets + 1))
        # shellcheck disable=SC2086 # studies are words
        recordings=$(of_each recordings.csv $studies) drops=$(of_each drops.csv $studies) errors=$(of_each confusions.csv $studies)
        [ "$set" != ucf101_13 ] || echo "job - python -m study.confusions$errors --first 7 --out $results/confusions.md"
        echo "job - python -m study.drops$drops --out $results/drops.md"
        echo "job - python -m study.top1$studies --out $results/top1.md"
        echo "job - python -m study.teacher_order$studies --out $results/teacher_order.csv"
        echo "job - python -m study.frontier$studies --out $results/frontier.csv --figures $FIGURES/$set"
        compare="job - python -m study.compare$recordings --resample backbone"
        for other in team_ce ce_equal anti_equal i_frame_equal fused_equal; do
            compared="$compared $results/comparisons/prog_kd_$other.csv"
            echo "$compare --pair prog_kd/vanilla $other/vanilla --out $results/comparisons/prog_kd_$other.csv"
        done
        compared="$compared $results/comparisons/wise.csv $results/comparisons/orders.csv"
        echo "$compare --pair prog_kd/wise:train_views prog_kd/vanilla --pair prog_kd/wise prog_kd/vanilla" \
            "--pair prog_kd/wise:train_views prog_kd/constant --pair prog_kd/wise prog_kd/constant" \
            "--out $results/comparisons/wise.csv"
        echo "$compare --pair mv_residual_iframe/vanilla iframe_residual_mv/vanilla" \
            "--pair mv_residual_iframe/vanilla residual_mv_iframe/vanilla --out $results/comparisons/orders.csv"
        [ "$set" != jhmdb_21 ] || # its classes have 12 to 20 test videos
            echo "$compare --pair prog_kd/vanilla team_ce/vanilla --pair prog_kd/vanilla ce_equal/vanilla" \
                "--mean-over classes --out $results/comparisons/by_class.csv"
    done
    folders='' gains=" --gains $RESULTS/few_labels/gains.csv"
    for set in $SETS; do
        own=$(whole_units "$RESULTS/few_labels/$set")
        [ -n "$own" ] || gains=''
        folders=$folders$own
    done
    [ -z "$folders" ] ||
        echo "job - python -m study.label_gain$folders --out $RESULTS/few_labels/gains.csv --figures $FIGURES"
    [ "$sets" -lt 2 ] || # a difference is decided on both data sets
        echo "job - python -m study.verdicts$compared$gains --out $RESULTS/verdicts.md"
}

case ${1-} in
    --prepare)
        [ $# -eq 1 ] || { echo "$0: --prepare takes no other option" >&2; exit 2; }
        prepare
        exit ;;
    --jobs) by_stage jobs backbones all; exit ;;
    --tables) shift && made=$(tables) ;;
    --pools) shift && made=$(jobs pools missing) ;;
    *) made=$(jobs backbones missing) ;;
esac
run_made "$@"
