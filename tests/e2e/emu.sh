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
    for options in "" "--enforce-eager" "--tp 2" "--numerics hf"; do
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
check models_are_refused_by_name
check cuda_without_its_object_is_an_environment
finish
