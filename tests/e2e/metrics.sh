#!/bin/sh
# The metrics of result.json against those that numpy computes from requests.jsonl.
. tests/e2e/lib.sh

CHECK=tools/check-metrics.py

# The first python3 that has numpy: the distribution's package is not the one of another python3 in front of it.
need_numpy() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import numpy' 2>/dev/null && return
    done
    skip "no python3 with numpy (Debian: python3-numpy)"
}

# measure CODE OPTION...: a run on the tiny model, its files in the next folder.
measure() {
    code=$1
    shift
    n_runs=$((n_runs + 1))
    exits "$code" "$QDYNO" run --model "$TINY" --result-dir "$TMP/run/$n_runs" "$@"
}

# interrupted: a run that a signal ends, with requests completed, aborted in the middle and never submitted.
interrupted() {
    n_runs=$((n_runs + 1))
    for n in 1 2 2 1 4000 4000 4000 4000 9; do echo "{\"prompt\": \"Once\", \"output_tokens\": $n}"; done >"$TMP/long.jsonl"
    start "$QDYNO" run --model "$TINY" --dataset-name custom --dataset-path "$TMP/long.jsonl" --ignore-eos --max-concurrency 4 \
        --num-warmups 0 --result-dir "$TMP/run/$n_runs"
    wait_for 20 grep -q 'weights:' "$ERR"
    sleep 0.5
    kill -INT "$background"
    ends 130
    equal 4 "$("$JSON" "$TMP/run/$n_runs/result.json" completed)"
    "$JSON" -l "$TMP/run/$n_runs/requests.jsonl" finish | grep -qx abort || fail "nothing aborted"
}

# died: a run whose only replica dies of a planted fault after some requests.
died() {
    n_runs=$((n_runs + 1))
    exits 5 env QD_FAULT_WORD=emu QD_FAULT_KERNEL=embed QD_FAULT_LAUNCH=8 "$BUILD/tests/e2e/faulty" run --device emu \
        --model "$TINY" --num-prompts 4 --input-len 9 --output-len 3 --max-concurrency 1 --num-warmups 0 --enforce-eager \
        --result-dir "$TMP/run/$n_runs"
    equal 'error 1 length 1 refused 2' "$("$JSON" -l "$TMP/run/$n_runs/requests.jsonl" finish | sort | uniq -c | awk '{ print $2, $1 }' | xargs)"
}

numpy_computes_the_same() {
    need_numpy
    n_runs=0
    for n in 2 3 5 7 8 13 20 30; do echo "{\"prompt\": \"Once upon $n times\", \"output_tokens\": $n}"; done >"$TMP/prompts.jsonl"
    # One that is refused, one of a single token.
    awk 'BEGIN { printf "{\"prompt\": \""; for (i = 0; i < 5000; i++) printf "word "; print "\", \"output_tokens\": 4}" }' >>"$TMP/prompts.jsonl"
    echo '{"prompt": "Once", "output_tokens": 1}' >>"$TMP/prompts.jsonl"
    for n in 1 2 3; do printf ', {"id": "%s", "conversations": [{"value": "How many are %s and 4?"}, {"value": "No idea"}]}' $n $n; done |
        sed 's/^,/[/; s/$/]/' >"$TMP/chats.json"
    while read -r options; do
        # shellcheck disable=SC2086 # words of a command line
        measure 0 $options
    done <<EOF_RUNS
--num-prompts 12 --input-len 30 --output-len 9 --random-range-ratio 0.9 --goodput ttft:5 tpot:1 e2el:30
--num-prompts 12 --input-len 30 --output-len 1 --goodput tpot:0
--num-prompts 12 --input-len 30 --output-len 9 --max-concurrency 3 --tp 2 --dp 2
--num-prompts 12 --input-len 30 --output-len 9 --max-concurrency 1
--num-prompts 3 --input-len 30 --output-len 9 --max-concurrency 8
--num-prompts 30 --input-len 30 --output-len 9 --request-rate 200
--num-prompts 30 --input-len 30 --output-len 9 --request-rate 400 --max-concurrency 2 --goodput ttft:20
--num-prompts 12 --input-len 30 --output-len 9 --wave-size 5 --client-delay-ms 0.7
--num-prompts 12 --input-len 30 --output-len 9 --request-rate 300 --burstiness 0.5 --async-scheduling
--num-prompts 12 --input-len 30 --output-len 9 --request-rate 300 --burstiness inf --goodput ttft:4 e2el:20
--num-prompts 12 --input-len 9 --output-len 9 --ramp-up-strategy exponential --ramp-up-start-rps 100 --ramp-up-end-rps 900
--dataset-name trace --dataset-path tests/fuzz/corpus/trace/blocks.jsonl --device null --enable-prefix-caching
--dataset-name trace --dataset-path tests/fuzz/corpus/trace/azure.csv --trace-speedup 10 --output-len 5
--dataset-name sharegpt --dataset-path $TMP/chats.json --num-prompts 3 --output-len 6 --max-concurrency 2
--dataset-name prompts --dataset-path LICENSE --num-prompts 6 --output-len 4 --dp 2 --router least-loaded
--dataset-name custom --dataset-path $TINY/prompts.jsonl --num-prompts 12 --temperature 0.7 --max-concurrency 4
--num-prompts 300 --device null --dp 3 --request-rate 200 --output-len 40
--num-prompts 300 --device null --dp 3 --request-rate 200 --output-len 40 --null-step-us 300 --goodput ttft:5 e2el:13
--num-prompts 40 --device null --dp 2 --max-concurrency 9 --output-len 40 --null-step-us 12500.5
--num-prompts 40 --device null --dp 3 --wave-size 20 --client-delay-ms 13 --output-len 9 --null-step-us 30000 --dp-coupling vllm-0.9.1
--num-prompts 40 --device null --dp 2 --output-len 4 --null-step-us 0 --goodput ttft:0
--num-prompts 8 --num-gpu-blocks-override 24 --max-model-len 368 --input-len 60 --output-len 60 --enable-prefix-caching
--dataset-name custom --dataset-path $TMP/prompts.jsonl
--dataset-name custom --dataset-path $TMP/prompts.jsonl --max-concurrency 2
--dataset-name custom --dataset-path $TMP/prompts.jsonl --request-rate 100
--dataset-name custom --dataset-path $TMP/prompts.jsonl --wave-size 4
EOF_RUNS
    equal 1 "$("$JSON" "$TMP/run/$n_runs/result.json" failed)"
    equal 1 "$(sed -n 10p "$TMP/run/$n_runs/requests.jsonl" | "$JSON" - output_len)"
    equal 'burst closed constant gamma poisson ramp trace waves' \
        "$(for i in $(seq 1 "$n_runs"); do "$JSON" "$TMP/run/$i/result.json" qdyno/workload/kind; done | sort -u | xargs)"
    measure 5 --num-prompts 2 --device null --input-len 4096
    interrupted
    died
    # All at once: numpy takes longer to load than to compute.
    set --
    for i in $(seq 1 "$n_runs"); do set -- "$@" "$TMP/run/$i/result.json" "$TMP/run/$i/requests.jsonl"; done
    exits 0 "$python" "$CHECK" "$@"
    equal "$n_runs" "$(grep -c ' values, 0 differ' "$OUT")"
}

# A check that cannot fail is none.
a_wrong_value_is_named() {
    need_numpy
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 6 --input-len 20 --output-len 5 --max-concurrency 2 --result-dir "$TMP/run"
    for key in p99_itl_ms request_throughput start_ns tok_s_per_user max_output_tokens_per_s; do
        sed -E "0,/\"$key\":/s/(\"$key\":[^0-9]*)([0-9])/\\19\\2/" "$TMP/run/result.json" >"$TMP/wrong.json"
        exits 1 "$python" "$CHECK" "$TMP/wrong.json" "$TMP/run/requests.jsonl"
        out_has "$key is 9"
        out_has ' values, 1 differ'
    done
    exits 2 "$python" "$CHECK" "$TMP/none.json" "$TMP/run/requests.jsonl"
}

check numpy_computes_the_same
check a_wrong_value_is_named
finish
