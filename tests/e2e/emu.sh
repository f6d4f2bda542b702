#!/bin/sh
# The device emu through the program: text, replicas, refusals, and the device cuda where it cannot be had.
# shellcheck shell=sh
. tests/e2e/lib.sh

# A prompt whose answer has a margin: `cpu` says the same with 1, 2, 4 and 8 ranks.
text() {
    "$QDYNO" generate --model "$TINY" --prompt "Once upon" --max-tokens 32 "$@" 2>"$ERR"
}

the_text_is_the_cpus() {
    text --device cpu >"$TMP/want"
    for options in "" "--enforce-eager" "--tp 2" "--tp 2 --collectives nccl" "--numerics hf" "--async-scheduling"; do
        # shellcheck disable=SC2086 # options are words
        text --device emu $options >"$TMP/got" || { cat "$ERR"; return 1; }
        cmp "$TMP/want" "$TMP/got" || { echo "with $options"; return 1; }
    done
}

replicas_answer() {
    exits 0 "$QDYNO" run --device emu --model "$TINY" --dp 2 --num-prompts 4 --input-len 24 --output-len 6 \
        --num-warmups 0 --json "$TMP/run.json"
    err_has ", copied 0.022 GB to 2 GPUs at "
    [ "$("$JSON" "$TMP/run.json" completed)" = 4 ]
    [ "$("$JSON" "$TMP/run.json" total_output_tokens)" = 24 ]
}

# Three requests at once: a step of three prompts, then five of three decodes, each padded to four. The warm-up's are
# not counted.
graphs_are_counted() {
    exits 0 "$QDYNO" run --device emu --model "$TINY" --num-prompts 3 --input-len 24 --output-len 6 --max-num-seqs 4 \
        --device-timing --result-dir "$TMP" --result-filename graphs.json
    grep -q 'graphs: 3 recorded in ' "$ERR" || { cat "$ERR"; return 1; }
    grep -q 'graphs         83.3 % of steps replayed, 17.2 % of tokens; padding 25.0 % of what they computed' "$OUT"
    grep -q 'device time    linear .*, gap .* %; unexplained 0.0. %' "$OUT"
    equal 5 "$("$JSON" "$TMP/graphs.json" qdyno/graphs/n_replayed_steps)"
    equal 1 "$("$JSON" "$TMP/graphs.json" qdyno/graphs/n_eager_steps)"
    equal 15 "$("$JSON" "$TMP/graphs.json" qdyno/graphs/n_replayed_tokens)"
    equal 72 "$("$JSON" "$TMP/graphs.json" qdyno/graphs/n_eager_tokens)"
    equal 5 "$("$JSON" "$TMP/graphs.json" qdyno/graphs/n_padded_tokens)"
    equal 6 "$("$JSON" "$TMP/graphs.json" qdyno/device_time/n_timed_steps)"
    err_has 'device timing: '
    err_has ' events a step; what they cost a GPU is not emulated'
    [ "$("$JSON" "$TMP/graphs.json" qdyno/device_time/timing_cost/n_events)" -gt 20 ]
    [ "$("$JSON" "$TMP/graphs.json" qdyno/device_time/timing_cost/wall_ns_with)" -gt 0 ]
}

ranks_share_gpus_when_asked() {
    refuses 3 '16 ranks need 16 GPUs, there are 8: fewer ranks, or --ranks-per-gpu 2' \
        "$QDYNO" run --device emu --model micro --load-format dummy --tp 8 --dp 2
    exits 0 "$QDYNO" run --device emu --model micro --load-format dummy --tp 2 --dp 2 --ranks-per-gpu 4 \
        --num-prompts 4 --input-len 9 --output-len 3 --num-warmups 0 --result-dir "$TMP/shared"
    out_has 'ranks shared a GPU: not comparable'
    equal 4 "$("$JSON" "$TMP/shared/result.json" completed)"
    equal 4 "$("$JSON" "$TMP/shared/result.json" qdyno/device/ranks_per_gpu)"
    grep -q '"ranks shared a GPU: not comparable"' "$TMP/shared/result.json" || fail "the result has no mark"
    equal own "$("$JSON" "$TMP/shared/result.json" qdyno/replicas/1/collectives)"
}

# What ranks settled on is in the result: NCCL beyond a size, or for all; one rank has none.
results_say_what_summed() {
    for case in 'auto --tp 2' 'own --tp 2 --batch-invariant' 'nccl --tp 2 --collectives nccl' 'null --tp 1'; do
        # shellcheck disable=SC2086 # options are words
        exits 0 "$QDYNO" run --device emu --model micro --load-format dummy ${case#* } --num-prompts 1 --input-len 5 \
            --output-len 2 --num-warmups 0 --enforce-eager --json "$TMP/summed.json"
        equal "${case%% *}" "$("$JSON" "$TMP/summed.json" qdyno/replicas/0/collectives)"
        equal null "$("$JSON" "$TMP/summed.json" qdyno/replicas/0/device_note)"
    done
}

# A step of many tokens takes the emulator longer than the watchdog gives it: as a rank that hangs, it still computes when
# the program ends. The requests before it are results.
a_step_that_does_not_end_ends_the_run() {
    long=$(seq 1 400 | tr '\n' ' ')
    printf '%s\n' '{"prompt": "Once", "output_tokens": 2}' "{\"prompt\": \"$long\", \"output_tokens\": 1}" >"$TMP/prompts.jsonl"
    exits 5 timeout 60 "$QDYNO" run --device emu --model "$TINY" --tp 2 --dataset-name custom --ignore-eos \
        --dataset-path "$TMP/prompts.jsonl" --max-concurrency 1 --num-warmups 0 --watchdog-timeout-s 1 --result-dir "$TMP/hung"
    err_has 'replica 0 rank '
    err_has ': step 2: no progress for 1 s'
    err_has 'it does not stop'
    equal 1 "$("$JSON" "$TMP/hung/result.json" completed)"
    equal 1 "$("$JSON" "$TMP/hung/result.json" failed)"
}

collectives_that_cannot_be_are_refused() {
    refuses 2 '--collectives nccl is of --device cuda and emu' \
        "$QDYNO" generate --model "$TINY" --prompt a --collectives nccl
    refuses 2 '--collectives nccl and --batch-invariant exclude each other' \
        "$QDYNO" generate --model "$TINY" --prompt a --device emu --tp 2 --batch-invariant --collectives nccl
    refuses 2 '--collectives nccl and --ranks-per-gpu exclude each other' \
        "$QDYNO" generate --model "$TINY" --prompt a --device emu --tp 2 --ranks-per-gpu 2 --collectives nccl
}

models_are_refused_by_name() {
    refuses 2 'mha-oddsize-f32 on emu: hidden size 72: it must be a multiple of 64' \
        "$QDYNO" run --model "$GOLDENS/mha-oddsize-f32" --device emu
}

cuda_without_its_object_is_an_environment() {
    mkdir "$TMP/bin"
    cp "$QDYNO" "$TMP/bin/qdyno"
    refuses 3 "the device cuda is not built: no $TMP/bin/libqdyno_cuda.so (make cuda)" \
        "$TMP/bin/qdyno" generate --model "$TINY" --prompt a --device cuda
    "$TMP/bin/qdyno" doctor | grep -q 'device     cuda: no: the device cuda is not built'
    echo "no object" >"$TMP/bin/libqdyno_cuda.so"
    refuses 3 "libqdyno_cuda.so" "$TMP/bin/qdyno" generate --model "$TINY" --prompt a --device cuda
}

check the_text_is_the_cpus
check replicas_answer
check graphs_are_counted
check ranks_share_gpus_when_asked
check results_say_what_summed
check a_step_that_does_not_end_ends_the_run
check collectives_that_cannot_be_are_refused
check models_are_refused_by_name
check cuda_without_its_object_is_an_environment
finish
