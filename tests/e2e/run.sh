#!/bin/sh
# One configuration, one workload: what is printed, what is written, what a signal leaves.
. tests/e2e/lib.sh

# result FOLDER: the files of a run are whole, and their totals agree with each other.
result() {
    equal 1 "$("$JSON" "$1/result.json" qdyno/schema_version)"
    n=$("$JSON" "$1/result.json" num_prompts)
    equal "$n" "$("$JSON" -l "$1/requests.jsonl" index | wc -l)"
    completed=$("$JSON" -l "$1/requests.jsonl" completed | grep -c true || true)
    equal "$completed" "$("$JSON" "$1/result.json" completed)"
    equal "$((n - completed))" "$("$JSON" "$1/result.json" failed)"
    "$JSON" -l "$1/requests.jsonl" completed >"$TMP/completed"
    "$JSON" -l "$1/requests.jsonl" output_len >"$TMP/lengths"
    output=$(paste "$TMP/completed" "$TMP/lengths" | awk '$1 == "true" { n += $2 } END { print n + 0 }')
    equal "$output" "$("$JSON" "$1/result.json" total_output_tokens)"
}

random_prompts_in_a_burst() {
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 6 --input-len 40 --output-len 5 --budget 64 --max-num-seqs 4 \
        --result-dir "$TMP/run"
    out_has '6 completed, 0 failed'
    out_has '240 in, 30 out'
    for row in TTFT ITL TPOT E2EL; do out_has "  $row "; done
    result "$TMP/run"
    equal burst "$("$JSON" "$TMP/run/result.json" qdyno/workload/kind)"
}

# Budget 64, 4 sequences, 6 prompts of 40, 5 tokens each. Prefill: step 1: 40 + 24, 2: 16 + 40 + 7, 3: 33, 6 and 7 (when
# the first ones have ended): 40 each; 8 pieces in 5 steps.
prefill_steps_and_pages_are_counted() {
    exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 6 --input-len 40 --output-len 5 --budget 64 \
        --max-num-seqs 4 --num-gpu-blocks-override 100 --max-model-len 64 --num-warmups 0 --result-dir "$TMP/run"
    equal 5 "$("$JSON" "$TMP/run/result.json" qdyno/replicas/0/n_prefill_steps)"
    equal 8 "$("$JSON" "$TMP/run/result.json" qdyno/replicas/0/n_prefill_requests)"
    out_has '1.60 prompts a prefill step'
    out_has "KV pages       $("$JSON" "$TMP/run/result.json" qdyno/replicas/0/peak_kv_share | awk '{ printf "%.1f", 100 * $1 }') % at"
    out_has 'us a step (schedule + prepare + launch + output)'
    out_lacks dispatch
    out_lacks goodput
}

goodput_dispatch_and_steady_state_are_shown() {
    exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 30 --request-rate 500 --result-dir "$TMP/run" \
        --goodput ttft:10000 tpot:10000 --goodput e2el:10000
    out_has 'goodput '
    out_has ', 30 of 30'
    out_has '  dispatch '
    out_has '  steady state '
    equal 10000 "$("$JSON" "$TMP/run/result.json" qdyno/goodput/e2el_ms)"
    equal "$("$JSON" "$TMP/run/result.json" request_throughput)" "$("$JSON" "$TMP/run/result.json" request_goodput)"
    equal arrivals "$("$JSON" "$TMP/run/result.json" qdyno/steady_state/rule)"
    # A rate that one request at a time cannot keep: they wait for their place, and only this column says so.
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 10 --request-rate 10000 --max-concurrency 1 --output-len 20 \
        --input-len 9 --result-dir "$TMP/run"
    echo "$("$JSON" "$TMP/run/result.json" qdyno/latency_ms/dispatch/max) $("$JSON" "$TMP/run/result.json" p99_ttft_ms)" |
        awk '{ exit !($1 > 2 * $2) }' || fail "no delay beyond TTFT"
    refuses 2 '--goodput: "itl:3" is no service level' "$QDYNO" run --model "$TINY" --goodput ttft:3 itl:3
    refuses 2 '--goodput: "ttft:4": the second level' "$QDYNO" sweep --model "$TINY" --goodput ttft:3 ttft:4
}

prompts_of_a_file_in_a_closed_loop() {
    for n in 3 5 7 9 11; do echo "{\"prompt\": \"Once upon $n times\", \"output_tokens\": $n}"; done >"$TMP/prompts.jsonl"
    exits 0 "$QDYNO" run --model "$TINY" --dataset-name custom --dataset-path "$TMP/prompts.jsonl" --num-prompts 4 \
        --max-concurrency 2 --ignore-eos --tp 2 --dp 2 --result-dir "$TMP/run"
    out_has '4 completed, 0 failed'
    result "$TMP/run"
    equal 24 "$("$JSON" "$TMP/run/result.json" total_output_tokens)"
    equal 2 "$("$JSON" "$TMP/run/result.json" max_concurrency)"
}

equal_beginnings_are_computed_once() {
    for device in null cpu; do
        exits 0 "$QDYNO" run --model "$TINY" --device $device --num-prompts 6 --random-prefix-len 64 --input-len 16 \
            --output-len 3 --max-concurrency 1 --enable-prefix-caching --result-dir "$TMP/run"
        out_has '320 of 480 prompt tokens hit'
        result "$TMP/run"
        equal 320 "$("$JSON" "$TMP/run/result.json" qdyno/hit_tokens)"
        equal '0 64 64 64 64 64' "$("$JSON" -l "$TMP/run/requests.jsonl" hit_tokens | xargs)"
    done
}

# 250 requests of a public trace, whose hash_ids say which beginnings they share: 227,328 of 3,534,037 prompt tokens would
# hit an unlimited cache, by the figures kept with it.
a_public_trace_hits_what_it_shares() {
    real=../shared/data/real
    [ -r $real/traces/mooncake-conversation.jsonl ] || skip "$real is not here"
    mkdir "$TMP/long"
    cp $real/configs/Qwen3-4B-Instruct-2507.config.json "$TMP/long/config.json"
    exits 0 "$QDYNO" run --model "$TMP/long" --device null --dataset-name trace \
        --dataset-path $real/traces/mooncake-conversation.jsonl --enable-prefix-caching --trace-speedup 1000 --max-concurrency 1 \
        --max-model-len 131072 --num-gpu-blocks-override 400000 --num-warmups 0
    out_has '250 completed, 0 failed'
    out_has '227328 of 3534037 prompt tokens hit'
}

a_router_is_chosen_by_name() {
    for router in round-robin least-loaded vllm vllm-0.9.1; do
        exits 0 "$QDYNO" run --model "$TINY" --device null --dp 3 --num-prompts 30 --router $router --async-scheduling \
            --result-dir "$TMP/run"
        result "$TMP/run"
        equal $router "$("$JSON" "$TMP/run/result.json" qdyno/engine/router)"
        equal true "$("$JSON" "$TMP/run/result.json" qdyno/engine/async_scheduling)"
    done
    refuses 2 '"sticky" is none of round-robin' "$QDYNO" run --model "$TINY" --router sticky
}

every_workload_has_its_name() {
    trace=tests/fuzz/corpus/trace
    printf 'at,prompt\n0,5\n0.01,6\n' >"$TMP/lengths.csv"
    while read -r kind options; do
        # shellcheck disable=SC2086 # words of a command line
        exits 0 "$QDYNO" run --model "$TINY" --device null $options --result-dir "$TMP/run"
        result "$TMP/run"
        equal "$kind" "$("$JSON" "$TMP/run/result.json" qdyno/workload/kind)"
    done <<EOF_WORKLOADS
burst --num-prompts 6 --input-len 9
closed --num-prompts 6 --input-len 9 --max-concurrency 2
poisson --num-prompts 6 --input-len 9 --request-rate 500 --max-concurrency 2
gamma --num-prompts 6 --input-len 9 --request-rate 500 --burstiness 0.5
constant --num-prompts 6 --input-len 9 --request-rate 500 --burstiness inf
ramp --num-prompts 6 --input-len 9 --ramp-up-strategy linear --ramp-up-start-rps 100 --ramp-up-end-rps 1000
waves --num-prompts 6 --input-len 9 --wave-size 4 --client-delay-ms 0.5
trace --dataset-name trace --dataset-path $trace/blocks.jsonl
trace --dataset-name trace --dataset-path $trace/azure.csv --trace-speedup 10 --max-concurrency 1
trace --dataset-name trace --dataset-path $TMP/lengths.csv --trace-columns at,prompt, --output-len 3
burst --dataset-name trace --dataset-path $TMP/lengths.csv --trace-columns ,prompt, --output-len 3
poisson --dataset-name prompts --dataset-path LICENSE --num-prompts 3 --request-rate 500
EOF_WORKLOADS
}

options_of_workloads_must_agree() {
    printf 'at,prompt\n0,5\n' >"$TMP/lengths.csv"
    while read -r reason options; do
        # shellcheck disable=SC2086 # words of a command line
        refuses 2 "$reason" "$QDYNO" run --model "$TINY" --device null $options
    done <<EOF_OPTIONS
needs --dataset-name trace
--dataset-path --dataset-path LICENSE
--request-rate --burstiness 2
--request-rate --request-rate 0
--ramp-up-start-rps --ramp-up-strategy linear
--ramp-up-strategy --ramp-up-end-rps 3
--request-rate --wave-size 3 --request-rate 2
--wave-size --client-delay-ms 2
--trace-columns --dataset-name trace --dataset-path $TMP/lengths.csv --trace-columns a,b
EOF_OPTIONS
}

dummy_weights_need_no_files() {
    exits 0 "$QDYNO" run --model micro --load-format dummy --num-prompts 3 --input-len 9 --output-len 3 --result-dir "$TMP/run"
    result "$TMP/run"
    refuses 2 'micro is a preset, not a folder: it needs --load-format dummy' "$QDYNO" run --model micro
    refuses 3 'Qwen3-8B does not fit: weights ' "$QDYNO" run --model Qwen3-8B --load-format dummy --memory-limit 2G
}

the_null_device_only_schedules() {
    exits 0 "$QDYNO" run --model Qwen3-32B --device null --tp 8 --dp 4 --num-prompts 400 --max-concurrency 16 \
        --result-dir "$TMP/run"
    out_has '400 completed, 0 failed'
    result "$TMP/run"
}

json_goes_to_stdout_alone() {
    exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --json -
    equal 2 "$("$JSON" "$OUT" completed)"
    exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --json "$TMP/also.json"
    equal 2 "$("$JSON" "$TMP/also.json" completed)"
    out_has '2 completed'
}

names_of_result_files() {
    exits 0 "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --result-dir "$TMP/a/b" --result-filename x.json
    equal "x.json
x.requests.jsonl" "$(ls "$TMP/a/b")"
    : >"$TMP/file"
    refuses 3 "$TMP/a: is not a regular file" \
        "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --result-dir "$TMP" --result-filename a
    refuses 3 "$TMP/file: is not a folder" "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --result-dir "$TMP/file/run"
}

# A file that cannot be written is noticed before the model is loaded.
a_json_file_is_checked_first() {
    refuses 3 "$TMP/none/x.json: cannot be written: No such file" \
        "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --json "$TMP/none/x.json"
    if grep -q 'on null' "$ERR"; then fail "the model was opened"; fi
    refuses 3 '/dev/null: is not a regular file' \
        "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --json /dev/null
}

# Folders that go away while the run is on its way: what was measured is on standard output.
a_result_that_cannot_be_written_is_printed() {
    mkdir "$TMP/gone"
    start "$QDYNO" run --model "$TINY" --input-len 8 --output-len 3000 --num-prompts 40 --num-warmups 0 \
        --result-dir "$TMP/gone/run" --json "$TMP/kept.json"
    wait_for 20 grep -q 'weights:' "$ERR"
    rm -r "$TMP/gone"
    kill -INT "$background"
    ends 3
    err_has "$TMP/gone/run/requests.jsonl: cannot be written"
    err_has 'the result goes to standard output'
    equal 40 "$("$JSON" "$OUT" num_prompts)"
    same "$OUT" "$TMP/kept.json"
}

# A trace that outgrows the disk (here: the size that a file may have) takes nothing else with it.
one_file_that_fails_leaves_the_others() {
    exits 3 sh -c 'trap "" XFSZ; ulimit -f 24; exec "$@"' sh "$QDYNO" run --model "$TINY" --device null --input-len 8 \
        --output-len 400 --num-prompts 2 --result-dir "$TMP/full" --trace "$TMP/full/trace.json"
    err_has "$TMP/full/trace.json: cannot be written"
    equal 2 "$("$JSON" "$TMP/full/result.json" completed)"
    equal 2 "$(wc -l <"$TMP/full/requests.jsonl")"
    [ ! -e "$TMP/full/trace.json" ]
}

a_request_that_cannot_fit_is_a_record() {
    exits 5 "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --input-len 4096 --result-dir "$TMP/run"
    out_has '0 completed, 2 failed'
    out_has 'mark: requests failed'
    err_has 'warm-up request 0: refused: prompt of 4096 tokens leaves no room'
    err_has 'qdyno: run: no request completed; the first of 2: refused: prompt of 4096 tokens leaves no room'
    result "$TMP/run"
    equal refused "$(sed -n 1p "$TMP/run/requests.jsonl" | "$JSON" - finish)"
    equal 0 "$(sed -n 1p "$TMP/run/requests.jsonl" | "$JSON" - submit_ns)"
    sed -n 2p "$TMP/run/requests.jsonl" | "$JSON" - error | grep -q 'leaves no room' || fail "no reason"
}

# Hundreds of virtual days between arrivals cost no real time.
virtual_time_does_not_wait() {
    exits 0 timeout 10 "$QDYNO" run --model 8B --device null --input-len 8 --output-len 4 --num-prompts 20 \
        --request-rate 1e-6 --null-step-us 1000
    out_has '20 completed, 0 failed in 20000000.'
}

# More at once than the engine has room for: nothing is left out silently.
a_burst_has_a_largest_size() {
    refuses 2 'a burst of 1048577 requests: the engine holds 1048576 at once (--max-concurrency hands over fewer)' \
        "$QDYNO" run --model 8B --device null --input-len 1 --output-len 1 --num-prompts 1048577
}

pools_shrink_or_are_refused() {
    exits 0 "$QDYNO" run --model "$TINY" --num-gpu-blocks-override 9 --num-prompts 4 --input-len 50 --output-len 20
    err_has 'max_model_len 128 (shrunk to the pool), 9 KV pages'
    out_has '4 completed'
    exits 0 "$QDYNO" run --model "$TINY" --memory-limit 64M --num-prompts 1 --input-len 4 --output-len 1 --dry-run
    refuses 2 'a pool of 1 KV pages of 65536 bytes: 2 are the least' "$QDYNO" run --model "$TINY" --num-gpu-blocks-override 1
    refuses 2 'max_model_len 4096 needs 257 KV pages, the pool has 3' \
        "$QDYNO" run --model "$TINY" --num-gpu-blocks-override 3 --max-model-len 4096
    refuses 3 '--memory-limit 0.001 GiB x utilization 0.90' "$QDYNO" run --model "$TINY" --memory-limit 1M
}

bad_files_of_prompts_are_refused() {
    bad() {
        printf '%s\n' "$2" >"$TMP/prompts.jsonl"
        refuses 2 "$TMP/prompts.jsonl: $1" \
            "$QDYNO" run --model "$TINY" --device null --dataset-name custom --dataset-path "$TMP/prompts.jsonl"
    }
    bad 'line 1: byte 0: expected a value' 'Once upon a time'
    bad 'line 2: "prompt" is no text' '{"prompt": "a"}
{"prompt": 7}'
    bad 'line 1: output_tokens' '{"prompt": "a", "output_tokens": 0}'
    bad 'line 1: "prompt" has 0 tokens' '{"prompt": ""}'
    bad 'no requests' ''
    refuses 2 'nowhere.jsonl: No such file' \
        "$QDYNO" run --model "$TINY" --device null --dataset-name custom --dataset-path nowhere.jsonl
    refuses 2 '1 requests, fewer than --num-prompts 3' sh -c 'echo "{\"prompt\": \"a\"}" >"$1/one.jsonl"
        exec "$2" run --model "$3" --device null --dataset-name custom --dataset-path "$1/one.jsonl" --num-prompts 3' \
        sh "$TMP" "$QDYNO" "$TINY"
}

# interrupt SIGNAL OPTION...: a run that would take long ends in order, with what it has.
interrupt() {
    signal=$1
    shift
    start "$QDYNO" run --model "$TINY" --input-len 8 --num-warmups 0 --result-dir "$TMP/run" "$@"
    wait_for 20 grep -q 'weights:' "$ERR"
    sleep 0.3
    kill "-$signal" "$background"
    ends 130
    result "$TMP/run"
    err_has "run: interrupted after $completed of $n requests"
    [ "$completed" -lt "$n" ] || fail "not interrupted"
    "$JSON" -l "$TMP/run/requests.jsonl" finish | grep -q abort || fail "nothing aborted"
    equal 0 "$("$JSON" -l "$TMP/run/requests.jsonl" submit_ns | sed -n 1p)"
    out_has "$completed completed, $((n - completed)) failed"
}

a_signal_ends_a_burst_in_order() { interrupt INT --num-prompts 40 --output-len 3000; }

a_signal_ends_a_closed_loop_in_order() { interrupt TERM --num-prompts 3000 --output-len 40 --max-concurrency 4; }

check random_prompts_in_a_burst
check prefill_steps_and_pages_are_counted
check goodput_dispatch_and_steady_state_are_shown
check prompts_of_a_file_in_a_closed_loop
check dummy_weights_need_no_files
check every_workload_has_its_name
check options_of_workloads_must_agree
check equal_beginnings_are_computed_once
check a_public_trace_hits_what_it_shares
check a_router_is_chosen_by_name
check the_null_device_only_schedules
check json_goes_to_stdout_alone
check names_of_result_files
check a_json_file_is_checked_first
check a_result_that_cannot_be_written_is_printed
check one_file_that_fails_leaves_the_others
check a_request_that_cannot_fit_is_a_record
check virtual_time_does_not_wait
check a_burst_has_a_largest_size
check pools_shrink_or_are_refused
check bad_files_of_prompts_are_refused
check a_signal_ends_a_burst_in_order
check a_signal_ends_a_closed_loop_in_order
finish
