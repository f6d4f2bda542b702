#!/bin/sh
# What the first person with a GPU runs, from a checkout (make, make cuda) or from the archive of `make portable`: checks
# the kernels and the numerics, measures, and packs all of it into one file to send or keep.
#   tools/gpu-first-run.sh [--device cuda] [--models 0.6B,8B] [--out DIR] [--only STAGE] [--list]
# Each stage is stopped after 8 minutes at the latest. A stage that fails does not stop the others; one that has passed
# is not repeated when the same command is given again, one named by --only is.
# Exit: 0 all passed, 2 usage, 3 no program, 5 a stage failed, 130 interrupted.
set -u

STAGE_SECONDS=450 # and 20 more for what does not listen
NAME=$0

usage() {
    echo "usage: $NAME [--device cuda|emu|cpu] [--models PRESET,...] [--out DIR] [--only STAGE] [--list]"
    echo "  --device   what is to be measured; emu and cpu take tiny workloads [cuda]"
    echo "  --models   presets with random weights to measure [0.6B,8B; micro on emu and cpu]"
    echo "  --out      folder of the results, packed as DIR.tar.gz [results/gpu-first-run]"
    echo "  --only     run this stage alone, also if it has passed"
    echo "  --list     print the stages with their expected seconds and stop"
}

bad_usage() {
    echo "gpu-first-run: $*" >&2
    usage >&2
    exit 2
}

device=cuda models='' out=results/gpu-first-run only='' list='' stage=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage; exit 0 ;;
    --list) list=yes; shift; continue ;;
    --device | --models | --out | --only | --stage) [ $# -ge 2 ] || bad_usage "$1 needs a value" ;;
    *) bad_usage "unknown argument $1" ;;
    esac
    case $1 in
    --device) device=$2 ;;
    --models) models=$2 ;;
    --out) out=$2 ;;
    --only) only=$2 ;;
    --stage) stage=$2 ;; # how it calls itself
    esac
    shift 2
done
case $device in cuda | emu | cpu) ;; *) bad_usage "--device $device is none of cuda, emu, cpu" ;; esac
case $out in /*) ;; *) out=$PWD/$out ;; esac

self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
cd "$(dirname "$self")/.." || exit 3
qdyno=build/qdyno
TINY=models/tiny
GOLDENS=tests/data/goldens/models

# How much work: what fills a GPU, or what an emulated one does in seconds.
if [ "$device" = cuda ]; then
    : "${models:=0.6B,8B}"
    kernel_tokens=1,8,64,256,2048 kernel_context='' golden_len=4096 text_tokens=32 batches='1 8 64 256' new_tokens=128 prefill_budgets='2048 8192'
    prefill_len=2048 prefill_prompts=16 budgets=512,2048,8192 sweep_input=512 sweep_output=128 sweep_prompts=64 runs=2
else
    : "${models:=micro}"
    kernel_tokens=1,3 kernel_context='--context 40' golden_len=40 text_tokens=4 batches='1 2' new_tokens=3 prefill_budgets='16 32'
    prefill_len=32 prefill_prompts=1 budgets=16,32 sweep_input=12 sweep_output=3 sweep_prompts=2 runs=1
fi
model_list=$(echo "$models" | tr ',' ' ')
first_model=${models%%,*}

# ---- stages; each prints what it does, leaves its files in $folder, and returns 0 when all of it passed ----

# dummy COMMAND MODEL OPTION...: qdyno COMMAND on random weights of that shape.
dummy() {
    command=$1 model=$2
    shift 2
    "$qdyno" "$command" --device "$device" --model "$model" --load-format dummy --ignore-eos "$@"
}

stage_doctor() {
    for tool in "nvidia-smi" "nvidia-smi topo -m"; do
        # shellcheck disable=SC2086 # a command and its arguments
        if command -v nvidia-smi >/dev/null; then $tool; fi
    done
    "$qdyno" doctor --device "$device" --json "$folder/doctor.json"
}

stage_kernels() {
    result=0
    : >"$folder/kernels.tsv"
    for model in $model_list; do
        # shellcheck disable=SC2086 # an option and its value, or nothing
        "$qdyno" kernels --device "$device" --model "$model" --tokens "$kernel_tokens" $kernel_context \
            --format json --output "$folder/kernels-$model.json" || result=1
        echo "$model" >>"$folder/kernels.tsv"
        [ ! -e "$folder/kernels-$model.json" ] || kernel_rows <"$folder/kernels-$model.json" >>"$folder/kernels.tsv"
    done
    cat "$folder/kernels.tsv"
    return $result
}

# The fields of a kernels.json that one reads first, a line a row.
kernel_rows() {
    printf 'op\tshape\tstatus\tmedian us\tfloor us\n'
    awk -F '"' '
        /^\t*"op":/ { op = $4 }
        /^\t*"shape":/ { shape = $4 }
        /^\t*"status":/ { status = $4 }
        /^\t*"median_us":/ { median = number() }
        /^\t*"floor_us":/ { printf "%s\t%s\t%s\t%s\t%s\n", op, shape, status, median, number() }
        function number() { gsub(/[^0-9.e+-]/, "", $3); return $3 == "" ? "-" : $3 }'
}

# Models that the device does not support are listed with its reason.
stage_eval() {
    result=0 judged=0
    : >"$folder/eval.jsonl"
    : >"$folder/not-supported.txt"
    for model in "$GOLDENS"/*; do
        for numerics in fused hf; do
            status=0
            "$qdyno" eval --device "$device" --model "$model" --expect "$model/golden.json" --numerics $numerics \
                --max-model-len $golden_len >"$folder/line" 2>"$folder/said" || status=$?
            cat "$folder/line" "$folder/said"
            reason=$(sed -n "s/^qdyno: eval: \(.* on $device: .*\)/\1/p" "$folder/said")
            if [ $status -eq 2 ] && [ -n "$reason" ]; then
                echo "$reason ($numerics)" >>"$folder/not-supported.txt"
            else
                cat "$folder/line" >>"$folder/eval.jsonl"
                judged=$((judged + 1))
                [ $status -eq 0 ] || result=1
            fi
        done
    done
    rm -f "$folder/line" "$folder/said"
    echo "golden models judged: $judged, not supported: $(wc -l <"$folder/not-supported.txt")"
    [ $judged -gt 0 ] && return $result
}

text() {
    "$qdyno" generate --model "$TINY" --prompt "Once upon" --max-tokens $text_tokens "$@"
}

# same_text OPTION...: the device's words are the CPU's. The prompt is one whose answer has a margin.
same_text() {
    text --device cpu >"$folder/cpu.txt" || return 1
    if text --device "$device" "$@" >"$folder/device.txt" && cmp -s "$folder/cpu.txt" "$folder/device.txt"; then
        echo "the same text as the cpu's: $device $*"
    else
        echo "not the cpu's text: $device $*"
        cat "$folder/device.txt"
        return 1
    fi
}

stage_text() {
    result=0
    same_text || result=1
    same_text --enforce-eager || result=1
    same_text --batch-invariant || result=1
    return $result
}

# field FILE KEY: a number of a result.json.
field() { sed -n "s/^[[:space:]]*\"$2\":[[:space:]]*\([0-9.eE+-]*\),*$/\1/p" "$1" | head -n 1; }

# One decode step at several batches, and prefill at several budgets, alone; then where the largest batch's time goes.
stage_steps() {
    result=0
    printf 'what\toutput tok/s\tmedian ITL ms\tinput + output tok/s\n' >"$folder/steps.tsv"
    for batch in $batches; do
        dummy run "$1" --random-input-len 16 --random-output-len $new_tokens --num-prompts "$batch" \
            --max-num-seqs "$batch" --max-concurrency "$batch" --result-dir "$folder" \
            --result-filename "decode-$batch.json" && add_step "decode, batch $batch" "$folder/decode-$batch.json" ||
            result=1
    done
    for budget in $prefill_budgets; do
        dummy run "$1" --random-input-len $prefill_len --random-output-len 1 --num-prompts $prefill_prompts \
            --max-num-seqs $prefill_prompts --max-num-batched-tokens "$budget" --result-dir "$folder" \
            --result-filename "prefill-$budget.json" && add_step "prefill, budget $budget" "$folder/prefill-$budget.json" ||
            result=1
    done
    dummy run "$1" --random-input-len 16 --random-output-len $new_tokens --num-prompts "$batch" --max-num-seqs "$batch" \
        --max-concurrency "$batch" --device-timing --ledger --result-dir "$folder" --result-filename timed.json \
        >"$folder/timed.txt" || result=1
    cat "$folder/steps.tsv" "$folder/timed.txt"
    return $result
}

# add_step WHAT FILE: a row from the numbers of a result.json.
add_step() {
    [ -n "$(field "$2" output_throughput)" ] || return 1
    printf '%s\t%s\t%s\t%s\n' "$1" "$(field "$2" output_throughput)" "$(field "$2" median_itl_ms)" \
        "$(field "$2" total_token_throughput)" >>"$folder/steps.tsv"
}

# stage_sweep MODEL graphs|eager
stage_sweep() {
    set -- "$1" "$2" --budget "$budgets" --random-input-len $sweep_input --random-output-len $sweep_output \
        --num-prompts $sweep_prompts --num-runs $runs --cell-timeout 150 --results "$folder" --experiment sweep
    [ "$2" = graphs ] || set -- "$@" --enforce-eager
    [ ! -d "$folder/sweep" ] || set -- "$@" --resume
    model=$1
    shift 2
    dummy sweep "$model" "$@" || return 1
    "$qdyno" report "$folder/sweep" >"$folder/report.md" || return 1
    cat "$folder/report.md"
}

# stage_ranks tp|dp: two ranks or two replicas on one GPU.
stage_ranks() {
    result=0
    same_text "--$1" 2 --ranks-per-gpu 2 || result=1
    dummy run "$first_model" "--$1" 2 --ranks-per-gpu 2 --random-input-len $sweep_input \
        --random-output-len $sweep_output --num-prompts $sweep_prompts --result-dir "$folder" || result=1
    return $result
}

run_stage() {
    case $1 in
    steps-*) stage_steps "${1#steps-}" ;;
    sweep-*-graphs) name=${1#sweep-} && stage_sweep "${name%-graphs}" graphs ;;
    sweep-*-eager) name=${1#sweep-} && stage_sweep "${name%-eager}" eager ;;
    ranks-*) stage_ranks "${1#ranks-}" ;;
    *) "stage_$1" ;;
    esac
}

# ---- the order and the expected seconds (estimates: no hardware has run this yet) ----

stages() {
    if [ "$device" = cuda ]; then check=60 small=120 large=300; else check=10 small=10 large=10; fi
    echo "doctor $check"
    echo "kernels $small"
    echo "eval $check"
    echo "text $check"
    for model in $model_list; do
        case $model in micro | 0.6B | 1.7B) seconds=$small ;; *) seconds=$large ;; esac
        echo "steps-$model $seconds"
        echo "sweep-$model-graphs $seconds"
        echo "sweep-$model-eager $seconds"
    done
    echo "ranks-tp $check"
    echo "ranks-dp $check"
}

# ---- the run ----

if [ -n "$stage" ]; then
    folder=$out/$stage
    run_stage "$stage"
    exit
fi
if [ -n "$list" ]; then
    stages
    exit 0
fi
[ -z "$only" ] || stages | grep -q "^$only " || bad_usage "--only $only is none of: $(stages | sed 's/ .*//' | tr '\n' ' ')"
[ -x $qdyno ] || {
    echo "gpu-first-run: no $PWD/$qdyno: run make (and make cuda), or take the archive of make portable" >&2
    exit 3
}
mkdir -p "$out" || exit 3
given="device $device, models $models"
[ -e "$out/given.txt" ] || echo "$given" >"$out/given.txt"
[ "$given" = "$(cat "$out/given.txt")" ] ||
    bad_usage "$out holds a run of $(cat "$out/given.txt"): give another --out, or the same arguments"
running=''
trap '[ -z "$running" ] || kill "$running"; exit 130' INT TERM

# The program's last word that is no progress, or the last line.
reason_in() {
    { grep -v '^[[:space:]]*$' "$1" | tail -n 1 && grep '^qdyno: ' "$1" | grep -vE '^qdyno: [0-9]+ of [0-9]+:' | tail -n 1; } |
        tail -n 1 | cut -c 1-200
}

# judge STAGE: runs it under its time limit; the outcome and the seconds it took go to STAGE/outcome.
judge() {
    mkdir -p "$out/$1"
    rm -f "$out/$1/outcome"
    began=$(date +%s) status=0
    timeout -k 20 $STAGE_SECONDS sh "$self" --device "$device" --models "$models" --out "$out" --stage "$1" \
        >"$out/$1/log.txt" 2>&1 </dev/null &
    running=$!
    wait $running || status=$?
    running=''
    seconds=$(($(date +%s) - began))
    case $status in
    0) outcome=passed ;;
    124 | 137) outcome="failed: stopped after $seconds s" ;;
    *) outcome="failed: $(reason_in "$out/$1/log.txt")" ;;
    esac
    printf '%s\t%s\t%s\n' "$1" "$seconds" "$outcome" >"$out/$1/outcome"
}

summarize() {
    echo "qdyno's first run on a GPU: $given"
    "$qdyno" --version
    cat build/CONTENTS.txt 2>/dev/null
    echo "$(date -u '+%Y-%m-%d %H:%M UTC'), Linux $(uname -r)"
    printf '\nstage\tseconds\toutcome\n'
    stages | while read -r name _; do
        cat "$out/$name/outcome" 2>/dev/null || printf '%s\t-\tnot run\n' "$name"
    done
    for part in "$out"/kernels/kernels.tsv "$out"/eval/not-supported.txt "$out"/eval/eval.jsonl "$out"/steps-*/steps.tsv "$out"/sweep-*/report.md; do
        [ -s "$part" ] || continue
        printf '\n== %s\n' "${part#"$out"/}"
        case $part in
        *.md) awk '/^## / { inside = /^## Results/ } inside && /^\|/' "$part" ;;
        *) cat "$part" ;;
        esac
    done
}

expected=$(stages | awk -v only="$only" 'only == "" || $1 == only { sum += $2; n++ } END { printf "%d stages, about %d minutes", n, (sum + 59) / 60 }')
echo "gpu-first-run: $expected (estimated; at most $(((STAGE_SECONDS + 20) / 60 + 1)) a stage); results in $out"
stages >"$out/stages.txt"
failed=0
while read -r name seconds; do
    [ -z "$only" ] || [ "$name" = "$only" ] || continue
    if [ -z "$only" ] && grep -q "passed$" "$out/$name/outcome" 2>/dev/null; then
        echo "$name: has passed before"
        continue
    fi
    echo "$name: about $seconds s ..."
    judge "$name"
    grep -q 'passed$' "$out/$name/outcome" || failed=$((failed + 1))
    awk -F '\t' '{ printf "%s: %s (%s s)\n", $1, $3, $2 }' "$out/$name/outcome"
done <"$out/stages.txt"

summarize >"$out/summary.txt"
tar -C "$(dirname "$out")" -czf "$out.tar.gz.new" "$(basename "$out")" && mv "$out.tar.gz.new" "$out.tar.gz" || exit 3
echo "gpu-first-run: summary: $out/summary.txt; everything: $out.tar.gz"
[ $failed -eq 0 ] || exit 5
