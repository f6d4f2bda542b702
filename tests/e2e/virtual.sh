#!/bin/sh
# Virtual time: runs on `null` whose steps take what they are told to.
. tests/e2e/lib.sh

# virtual NAME OPTION...: a run on `null` in virtual time; files in $TMP/NAME.
virtual() {
    name=$1
    shift
    exits 0 "$QDYNO" run --model "$TINY" --device null --result-dir "$TMP/$name" --save-steps "$@"
}

# refused TEXT OPTION...: a run on `null` that does not begin.
refused() {
    text=$1
    shift
    refuses 2 "$text" "$QDYNO" run --model "$TINY" --device null "$@"
}

value() { "$JSON" "$TMP/$1/result.json" "$2"; }

hundred_seconds_pass_at_once() {
    begin=$(date +%s)
    virtual a --num-prompts 100 --request-rate 1 --null-step-us 20000 --input-len 64 --output-len 16
    [ $(($(date +%s) - begin)) -le 5 ] || fail "virtual time took real time"
    out_has '  clock          virtual'
    out_has 'mark: virtual time'
    equal virtual "$(value a qdyno/clock)"
    equal 1 "$(value a qdyno/marks)"
    equal 100 "$(value a completed)"
    equal 100 "$(value a duration | cut -c1-3)"
    equal 20 "$(value a qdyno/latency_ms/itl/p50)"
    equal 20 "$(value a qdyno/latency_ms/itl/max)"
}

a_run_is_a_function_of_its_inputs() {
    for options in "--dp 3 --router vllm --request-rate 40" "--max-concurrency 5 --dp 2" "--wave-size 7 --client-delay-ms 13" \
        "--num-gpu-blocks-override 24 --max-model-len 368" "--async-scheduling --dp 2" "--enable-prefix-caching --random-prefix-len 32" \
        "--dp 4 --router vllm-0.9.1 --wave-size 20 --client-delay-ms 13 --dp-coupling vllm-0.9.1"; do
        for name in one two; do
            # shellcheck disable=SC2086 # options are words
            virtual $name --num-prompts 40 --input-len 90 --output-len 40 --null-step-us 12345.678 $options
        done
        cmp "$TMP/one/requests.jsonl" "$TMP/two/requests.jsonl"
        # The steps it took are steps to take.
        # shellcheck disable=SC2086
        exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 40 --input-len 90 --output-len 40 $options \
            --null-steps "$TMP/one/steps.jsonl" --result-dir "$TMP/three"
        cmp "$TMP/one/requests.jsonl" "$TMP/three/requests.jsonl"
    done
}

# What a run on `cpu` took, step by step, is what the same run takes in virtual time.
recorded_steps_take_their_time() {
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 6 --input-len 90 --output-len 12 --budget 64 --max-num-seqs 4 \
        --save-steps --result-dir "$TMP/cpu"
    virtual null --num-prompts 6 --input-len 90 --output-len 12 --budget 64 --max-num-seqs 4 --null-steps "$TMP/cpu/steps.jsonl"
    for key in begin_ns wait_begin_ns wait_ns output_ns; do
        "$JSON" -l "$TMP/cpu/steps.jsonl" $key >"$TMP/$key"
    done
    expected=$(paste "$TMP/begin_ns" "$TMP/wait_begin_ns" "$TMP/wait_ns" "$TMP/output_ns" |
        awk '{ n += $2 + $3 + $4 - $1 } END { printf "%.0f", n }')
    equal "$expected" "$("$JSON" -l "$TMP/null/requests.jsonl" last_token_ns | sort -n | tail -n 1)"
    for key in n_prefill_tokens n_decode_tokens n_seqs n_running n_waiting n_kv_blocks; do
        "$JSON" -l "$TMP/cpu/steps.jsonl" $key >"$TMP/of_cpu"
        "$JSON" -l "$TMP/null/steps.jsonl" $key >"$TMP/of_null"
        cmp "$TMP/of_cpu" "$TMP/of_null"
    done
}

# Worked out by hand in tests/harness/coupling.c: the second request misses a round of 30 ms.
coupled_replicas_wait_for_each_other() {
    for coupling in none vllm-0.9.1; do
        virtual $coupling --dp 2 --num-prompts 2 --wave-size 2 --client-delay-ms 13 --input-len 8 --output-len 2 \
            --null-step-us 30000 --dp-coupling $coupling
    done
    equal null "$(value none qdyno/coupling)"
    equal 43000000 "$("$JSON" -l "$TMP/none/requests.jsonl" first_token_ns | tail -n 1)"
    equal 90000000 "$("$JSON" -l "$TMP/vllm-0.9.1/requests.jsonl" first_token_ns | tail -n 1)"
    equal 47000000 "$(value vllm-0.9.1 qdyno/coupling/replicas/1/wait_ns)"
    out_has '  coupling wait  0.047 s of all replicas, 19.6 %; by replica 0.0 39.2 %'
    out_has '  imbalance      1.000 '
    refuses 2 'is of --device null in virtual time' "$QDYNO" run --model "$TINY" --dp 2 --dp-coupling vllm-0.9.1
    refused 'excludes --async-scheduling' --null-step-us 1 --dp-coupling vllm-0.9.1 --async-scheduling
}

# Exit code 5 and what was computed until then, as after a failed rank.
a_file_that_ends_early_ends_the_run() {
    virtual whole --num-prompts 8 --input-len 20 --output-len 10 --dp 2 --null-step-us 1000
    grep -v '"replica":1,"index":[5-9]' "$TMP/whole/steps.jsonl" >"$TMP/short.jsonl"
    exits 5 "$QDYNO" run --model "$TINY" --device null --num-prompts 8 --input-len 20 --output-len 10 --dp 2 \
        --null-steps "$TMP/short.jsonl" --result-dir "$TMP/part"
    grep -q "replica 1: step 5: $TMP/short.jsonl ends after 5 steps of it" "$ERR" || fail "no reason"
    equal 4 "$(value part completed)"
    equal 4 "$(value part failed)"
}

bad_options_and_files_are_refused() {
    refuses 2 '--null-step-us is of --device null' "$QDYNO" run --model "$TINY" --null-step-us 5
    refused 'exclude each other' --null-step-us 5 --null-steps "$TMP/f"
    refused '--trace excludes --null-step-us' --null-step-us 5 --trace "$TMP/trace.json"
    refused '--null-steps excludes --num-warmups' --null-steps "$TMP/f" --num-warmups 1
    refused "$TMP/missing: No such file" --null-steps "$TMP/missing"
    refused 'LICENSE: line 1: ' --null-steps LICENSE
    echo '{"replica": 0, "index": 0, "virtual_begin_ns": 0, "virtual_end_ns": 1}' >"$TMP/one.jsonl"
    refused "$TMP/one.jsonl: no step of replica 1, but the run has 2" --dp 2 --null-steps "$TMP/one.jsonl"
    refuses 2 'unknown option --null-step-us' "$QDYNO" eval --model "$TINY" --null-step-us 1
    [ ! -e "$TMP/trace.json" ] || fail "a trace"
}

# Step times are an axis like any other; the report says what they are.
a_sweep_in_virtual_time() {
    exits 0 "$QDYNO" sweep --model "$TINY" --device null --num-prompts 4 --input-len 30 --output-len 4 --tp 1,2 --dp 1 --budget 64 \
        --null-step-us 1000,2000 --repeats 2 --results "$TMP/sweeps" --experiment steps
    for us in 1000 2000; do
        for run in 0 1; do
            equal $((us / 1000)) "$("$JSON" "$TMP/sweeps/steps/tp=2-null-step-us=$us/run=$run.json" p99_itl_ms)"
        done
    done
    exits 0 "$QDYNO" report "$TMP/sweeps/steps"
    out_has 'cells are of virtual time'
    out_has 'No cell carries a conclusion'
    out_has 'virtual time: steps took what they were told to, nothing was measured'
}

check hundred_seconds_pass_at_once
check a_run_is_a_function_of_its_inputs
check recorded_steps_take_their_time
check coupled_replicas_wait_for_each_other
check a_file_that_ends_early_ends_the_run
check bad_options_and_files_are_refused
check a_sweep_in_virtual_time
finish
