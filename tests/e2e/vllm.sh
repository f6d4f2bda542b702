#!/bin/sh
# run --print-vllm: commands that a shell reads as they were meant, prompts that mean the same, differences that are named.
. tests/e2e/lib.sh

# for_vllm OPTION...: prints the commands into $OUT, then runs them with a vllm that writes its words to $TMP/words.
for_vllm() {
    exits 0 "$QDYNO" run --model "$TINY" --print-vllm --result-dir "$TMP/run" "$@"
    cp "$OUT" "$TMP/commands"
    sh -c 'vllm() { printf "%s\n" "$@"; }; . "$1"' sh "$TMP/commands" >"$TMP/words"
}

# word VALUE OPTION: the option is followed by that word.
word() { equal "$1" "$(grep -x -A 1 -e "$2" "$TMP/words" | sed -n 2p)"; }

has_word() { grep -qx -e "$1" "$TMP/words" || fail "no word $1"; }
lacks_word() { ! grep -qx -e "$1" "$TMP/words" || fail "the word $1"; }

the_server_is_configured_alike() {
    for_vllm --tp 2 --dp 4 --budget 512 --max-num-seqs 32 --max-model-len 400 --num-gpu-blocks-override 99 --seed 7 \
        --long-prefill-token-threshold 64 --num-prompts 3 --input-len 9
    equal serve "$(sed -n 1p "$TMP/words")"
    equal "$TINY" "$(sed -n 2p "$TMP/words")"
    word 2 --tensor-parallel-size
    word 4 --data-parallel-size
    word 512 --max-num-batched-tokens
    word 32 --max-num-seqs
    word 400 --max-model-len
    word 99 --num-gpu-blocks-override
    word 16 --block-size
    word 64 --long-prefill-token-threshold
    word 7 --seed
    has_word --no-enable-prefix-caching
    has_word --no-async-scheduling
    lacks_word --enforce-eager
    out_has 'Router: round-robin here'
    for_vllm --enable-prefix-caching --async-scheduling --enforce-eager --batch-invariant --num-prompts 1 --input-len 9
    for option in --enable-prefix-caching --async-scheduling --enforce-eager; do has_word $option; done
    lacks_word --no-enable-prefix-caching
    out_has 'VLLM_BATCH_INVARIANT=1 vllm serve'
}

every_workload_is_expressed_or_named() {
    common='--num-prompts 6 --input-len 9 --output-len 5'
    # shellcheck disable=SC2086 # words of a command line
    {
        for_vllm $common
        word inf --request-rate
        word 6 --num-prompts
        word 0 --temperature
        has_word --ignore-eos
        lacks_word --max-concurrency
        out_lacks 'Arrivals:'
        for_vllm $common --max-concurrency 3
        word 3 --max-concurrency
        for_vllm $common --request-rate 2.5 --burstiness 0.5 --max-concurrency 3
        word 2.5 --request-rate
        word 0.5 --burstiness
        out_has 'Arrivals: same distribution'
        for_vllm $common --request-rate 2 --burstiness inf
        word inf --burstiness
        for_vllm $common --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 4.5
        word linear --ramp-up-strategy
        word 1 --ramp-up-start-rps
        lacks_word --request-rate
        out_has 'Ramp: vLLM takes whole requests'
        for_vllm $common --wave-size 4 --client-delay-ms 3
        word 4 --max-concurrency
        out_has 'Waves: vLLM has none'
        out_has 'Client delay: vLLM has none; here the requests of a wave follow each other by 3 ms'
    }
    printf 'at,prompt,output\n0,5,4\n0.5,6,3\n' >"$TMP/lengths.csv"
    for_vllm --dataset-name trace --dataset-path "$TMP/lengths.csv" --trace-columns at,prompt,output
    word 4 --request-rate
    out_has 'a custom data set has no times'
    out_has 'timed_trace'
}

what_vllm_has_not_is_named() {
    for_vllm --num-prompts 2 --input-len 9 --device null --threads 1 --numerics hf --temperature 0.5 --num-warmups 2 \
        --goodput ttft:200 tpot:50
    out_has '--threads 1: not an option'
    out_has '--numerics hf: not an option'
    out_has 'null executes nothing'
    out_has 'Sampling: other random numbers'
    out_has 'HTTP, tokenising and detokenising'
    word ttft:200 --goodput
    word tpot:50 ttft:200
    word 2 --num-warmups
}

words_are_quoted() {
    mkdir "$TMP/a b"
    cp -r "$TINY" "$TMP/a b/it's \$HOME"
    exits 0 "$QDYNO" run --model "$TMP/a b/it's \$HOME" --print-vllm --result-dir "$TMP/a b/out" --num-prompts 1 --input-len 9 \
        --label 'x "y"'
    sh -c 'vllm() { printf "%s\n" "$@"; }; . "$1"' sh "$OUT" >"$TMP/words"
    equal "$TMP/a b/it's \$HOME" "$(sed -n 2p "$TMP/words")"
    word "$TMP/a b/out/vllm-prompts.jsonl" --dataset-path
    word 'x "y"' --label
    [ -s "$TMP/a b/out/vllm-prompts.jsonl" ] || fail "no prompts"
}

# Prompts that were texts come back as they were: the file is the same workload. Random ids do not always.
the_prompts_mean_the_same() {
    head -n 5 "$TINY/prompts.jsonl" >"$TMP/prompts.jsonl"
    printf '{"prompt": "caf\303\251 \\u0000\\n\\"\360\237\230\200", "output_tokens": 3}\n' >>"$TMP/prompts.jsonl"
    for_vllm --dataset-name custom --dataset-path "$TMP/prompts.jsonl"
    out_has 'the texts of all 6 have the ids that ran here'
    lacks_word --ignore-eos
    for file in "$TMP/prompts.jsonl" "$TMP/run/vllm-prompts.jsonl"; do
        exits 0 "$QDYNO" run --model "$TINY" --device null --dataset-name custom --dataset-path "$file" --json -
        "$JSON" "$OUT" qdyno/workload/hash
    done | uniq >"$TMP/hashes"
    equal 1 "$(wc -l <"$TMP/hashes")"
    for_vllm --num-prompts 20 --input-len 12 --output-len 5
    grep -qE 'the texts of [1-9][0-9]? of 20 have other ids than those that ran here, those of [0-9]+ another' "$TMP/commands" ||
        fail "nothing about prompts that change"
    equal 20 "$("$JSON" -l "$TMP/run/vllm-prompts.jsonl" output_tokens | grep -cx 5)"
}

what_cannot_be_printed_is_refused() {
    refuses 2 '--print-vllm needs --result-dir' "$QDYNO" run --model "$TINY" --print-vllm
    refuses 2 'micro: no such folder' "$QDYNO" run --model micro --load-format dummy --print-vllm --result-dir "$TMP/run"
    refuses 2 'unknown option --print-vllm' "$QDYNO" sweep --model "$TINY" --print-vllm
    : >"$TMP/file"
    refuses 3 "$TMP/file: is not a folder" "$QDYNO" run --model "$TINY" --print-vllm --result-dir "$TMP/file"
}

check the_server_is_configured_alike
check every_workload_is_expressed_or_named
check what_vllm_has_not_is_named
check words_are_quoted
check the_prompts_mean_the_same
check what_cannot_be_printed_is_refused
finish
