#!/bin/sh
# The step ledger: every microsecond of a run is named, rows and traces add up to the result.
. tests/e2e/lib.sh

# value FOLDER PATH: of the ledger in a result.
value() { "$JSON" "$1/result.json" "qdyno/ledger/$2"; }

# below LIMIT VALUE
below() { awk -v limit="$1" -v value="$2" 'BEGIN { exit !(value + 0 < limit) }' || fail "$2 is not below $1"; }

# sum KEY: over the lines of steps.jsonl.
sum() { "$JSON" -l "$TMP/run/steps.jsonl" "$1" | awk '{ n += $1 } END { printf "%.0f", n }'; }

# explained OPTION...: a run whose segments leave less than 1 % of the wall clock unexplained; in $TMP/run.
explained() {
    exits 0 "$QDYNO" run --model "$TINY" "$@" --ledger --save-steps --result-dir "$TMP/run"
    below 0.01 "$(value "$TMP/run" checks/host_unexplained_share)"
    below 0.000001 "$(value "$TMP/run" checks/latency_unexplained_share)"
    equal "$(value "$TMP/run" checks/n_expected_tokens)" "$(value "$TMP/run" checks/n_computed_tokens)"
    equal 0 "$(value "$TMP/run" rows/n_dropped)"
    equal "$(value "$TMP/run" n_steps)" "$("$JSON" -l "$TMP/run/steps.jsonl" index | wc -l)"
    equal "$(value "$TMP/run" rows/n_prefill_tokens)" "$(sum n_prefill_tokens)"
    equal "$(value "$TMP/run" rows/n_decode_tokens)" "$(sum n_decode_tokens)"
}

# adds_up: floor, kernels, span and wall of $TMP/run, from the terms between them.
adds_up() {
    for key in span exposed_host idle unexplained wall; do value "$TMP/run" waterfall_ns/$key; done |
        awk '{ v[NR] = $1 } END { d = v[1] + v[2] + v[3] + v[4] - v[5]; exit !(d * d < 1) }' || fail "the waterfall has a hole"
}

a_cpu_has_a_floor_when_it_is_probed() {
    for options in "" "--async-scheduling" "--tp 2" "--dp 2 --enable-prefix-caching --random-prefix-len 32"; do
        # shellcheck disable=SC2086 # options are words
        explained --num-prompts 12 --input-len 40 --output-len 12 --budget 64 --max-num-seqs 8 --probe $options
        adds_up
        out_has '  = wall '
        out_has 'bound by '
        equal null "$(value "$TMP/run" waterfall_ns/kernels)"
        below "$(value "$TMP/run" waterfall_ns/wall)" "$(value "$TMP/run" waterfall_ns/span)"
        "$JSON" "$TMP/run/result.json" qdyno/ledger/floor/segments/linear/bound | grep -qE '^(memory|compute)$'
        equal "$(value "$TMP/run" rows/span_ns)" "$(sum span_ns)"
    done
}

without_a_probe_the_floor_is_unknown() {
    explained --num-prompts 4 --input-len 40 --output-len 12
    grep -qE 'roofline floor +unknown +needs --probe' "$OUT" || fail "no word about the floor"
    equal null "$(value "$TMP/run" waterfall_ns/floor)"
    equal null "$(value "$TMP/run" floor)"
}

without_a_device_all_is_host_time() {
    explained --device null --num-prompts 200 --input-len 200 --output-len 100 --dp 2
    grep -qE 'device span +unknown +nothing executes' "$OUT" || fail "no word about the span"
    equal null "$(value "$TMP/run" waterfall_ns/span)"
    equal null "$("$JSON" -l "$TMP/run/steps.jsonl" span_ns | sort -u)"
}

# 8B decodes one request after the other: weights are read once a step, 16.4 GB at 3.35 TB/s.
a_profile_gives_a_floor_without_a_device() {
    exits 0 "$QDYNO" run --model 8B --device null --num-prompts 2 --max-concurrency 1 --input-len 1 --output-len 20 \
        --ledger --machine H100-SXM --result-dir "$TMP/run"
    grep -qE 'roofline floor .* bound by memory$' "$OUT" || fail "no floor"
    per_step=$(echo "$(value "$TMP/run" waterfall_ns/floor) $(value "$TMP/run" n_steps)" | awk '{ printf "%.2f", $1 / $2 / 1e6 }')
    below 5 "$per_step"
    below "$per_step" 4.4
    equal H100-SXM "$(value "$TMP/run" floor/machine)"
    refuses 2 'no machine H200' "$QDYNO" run --model 8B --device null --ledger --machine H200
    refuses 2 '--machine needs --ledger' "$QDYNO" run --model 8B --device null --machine L40S
    refuses 2 '--machine this needs --probe' "$QDYNO" run --model 8B --device null --ledger --machine this
}

an_emulated_gpu_tells_its_segments() {
    explained --device emu --num-prompts 3 --input-len 24 --output-len 6 --max-num-seqs 4 --device-timing
    adds_up
    below 0.01 "$(value "$TMP/run" checks/device_unexplained_share)"
    grep -q 'device timing, in all of the above: [1-9][0-9]* events a step' "$OUT" || fail "timing costs nothing"
    for key in kernels gaps span; do value "$TMP/run" waterfall_ns/$key; done |
        awk '{ v[NR] = $1 } END { d = v[1] + v[2] - v[3]; exit !(d * d < 1 && v[1] > 0) }' || fail "kernels and gaps are no span"
    equal 0 "$("$JSON" -l "$TMP/run/steps.jsonl" segments_ns/linear | grep -cv '^[1-9]' || true)"
}

# Calls of ops, whose sum is held against the ranks' spans, which their threads stamp apart.
a_cpu_tells_its_segments() {
    for tp in 1 2; do
        explained --num-prompts 4 --input-len 40 --output-len 8 --budget 64 --device-timing --tp $tp
        adds_up
        for key in kernels gaps span; do value "$TMP/run" waterfall_ns/$key; done |
            awk '{ v[NR] = $1 } END { d = v[1] + v[2] - v[3]; exit !(d * d < 1 && v[2] > 0 && v[1] > v[2]) }' ||
            fail "kernels and gaps are no span"
        equal 0 "$("$JSON" -l "$TMP/run/steps.jsonl" segments_ns/linear | grep -cv '^[1-9]' || true)"
        collective=$("$JSON" "$TMP/run/result.json" qdyno/device_time/segments_ns/collective)
        [ "$tp" -gt 1 ] || equal 0 "$collective"
        [ "$tp" -eq 1 ] || below "$collective" 0
    done
}

# Every kernel alone, at the sizes of the run's steps; then the same kernels in the steps.
the_in_graph_penalty_is_a_number_with_kernels_timed_alone() {
    exits 0 "$QDYNO" kernels --model micro --tokens 1,16 --context 0,16 --cache warm --repeat 2 --format json --output "$TMP/k.json"
    run_micro() {
        exits 0 "$QDYNO" run --model micro --load-format dummy --num-prompts 1 --probe --ledger --device-timing \
            --kernels "$TMP/k.json" --result-dir "$TMP/run" "$@"
    }
    run_micro --input-len 16 --output-len 2 --record "$TMP/steps"
    grep -qE '\+ in-graph penalty +-?[0-9.]+ .*kernels alone: [0-9.]+ ms a step' "$OUT" || fail "no penalty"
    for key in floor inefficiency in_graph kernels alone; do value "$TMP/run" waterfall_ns/$key; done |
        awk '{ v[NR] = $1 } END { d = v[1] + v[2] + v[3] - v[4]; e = v[1] + v[2] - v[5]; exit !(d * d < 1 && e * e < 1 && v[5] > 0) }' ||
        fail "the waterfall has a hole"
    equal 0 "$(value "$TMP/run" alone/n_unknown)"
    run_micro --input-len 15 --output-len 3
    equal 0 "$(value "$TMP/run" alone/n_unknown)"
    run_micro --input-len 17 --output-len 2
    out_has 'in 2 of 2 steps not known: embed of 17 rows lies outside the 1 to 16 that were measured'
    equal null "$(value "$TMP/run" waterfall_ns/in_graph)"
    exits 0 "$QDYNO" run --model micro --load-format dummy --replay "$TMP/steps" --ledger --device-timing --kernels "$TMP/k.json"
    out_has 'kernels alone: '
    refused() { refuses 2 "$1" "$QDYNO" run --model micro --load-format dummy --kernels "$TMP/k.json" $2; }
    refused '--kernels needs --ledger' ''
    refused '--kernels: times of the device emu mean nothing' '--ledger --device emu'
    refused 'k.json: rows: no time of embed at TP 2' '--ledger --tp 2'
    refuses 2 "but the run's model has" "$QDYNO" run --model "$TINY" --ledger --kernels "$TMP/k.json"
    refuses 2 'none.json' "$QDYNO" run --model "$TINY" --ledger --kernels "$TMP/none.json"
}

# svg_has FILE: well-formed, with every line's name and value of the text in $OUT.
svg_has() {
    python3 -c 'import sys, xml.dom.minidom as m
d = m.parse(sys.argv[1])
for t in d.getElementsByTagName("text"): print("".join(n.data for n in t.childNodes))' "$1" >"$TMP/texts" ||
        fail "$1 is no XML"
    # "  + gaps                    0.1234    5.6%": the name ends at column 24.
    sed -n '/of wall$/,/= wall/{/of wall$/d;p;}' "$OUT" |
        awk '{ name = substr($0, 3, 22); gsub(/^ +| +$/, "", name); split(substr($0, 25), v); print name "|" v[1] }' >"$TMP/lines"
    equal 10 "$(wc -l <"$TMP/lines")"
    while IFS='|' read -r name value; do
        grep -qxF -e "$name" "$TMP/texts" || fail "no \"$name\" in $1"
        [ "$value" = unknown ] || value="$value ms"
        grep -qF -e "$value" "$TMP/texts" || fail "no \"$value\" of $name in $1"
    done <"$TMP/lines"
}

the_waterfall_is_drawn() {
    command -v gnuplot >/dev/null || skip "gnuplot is not installed"
    python3 -c 'import xml.dom.minidom' 2>/dev/null || skip "python3 is not installed"
    cp -r "$TINY" "$TMP/<a> & 'b'"
    explained --num-prompts 4 --input-len 40 --output-len 8 --probe --device-timing --ledger-svg "$TMP/w.svg" --record "$TMP/steps"
    svg_has "$TMP/w.svg"
    exits 0 "$QDYNO" run --model "$TMP/<a> & 'b'" --replay "$TMP/steps" --ledger --ledger-svg "$TMP/w.svg"
    svg_has "$TMP/w.svg"
    grep -qF "<a> & 'b' replayed on cpu, TP 1 x DP 1" "$TMP/texts" || fail "another title"
    exits 0 "$QDYNO" run --model 8B --device null --num-prompts 2 --input-len 4 --output-len 4 --ledger --ledger-svg "$TMP/w.svg"
    svg_has "$TMP/w.svg"
}

without_gnuplot_nothing_runs() {
    mkdir "$TMP/bin"
    refuses 3 'gnuplot cannot be started: No such file or directory (Debian package gnuplot-nox)' \
        env PATH="$TMP/bin" "$(realpath "$QDYNO")" run --model "$TINY" --num-prompts 1 --ledger-svg "$TMP/x.svg"
    printf '#!/bin/sh\nexit 1\n' >"$TMP/bin/gnuplot" && chmod +x "$TMP/bin/gnuplot"
    refuses 3 'gnuplot failed' env PATH="$TMP/bin" "$(realpath "$QDYNO")" run --model "$TINY" --num-prompts 1 --ledger-svg "$TMP/x.svg"
    refuses 3 "$TMP/none/w.svg" "$QDYNO" run --model "$TINY" --num-prompts 1 --ledger-svg "$TMP/none/w.svg"
    [ ! -e "$TMP/x.svg" ] || fail "something was drawn"
}

# Slices of the host's lane are the replica's segments.
a_trace_has_every_step() {
    explained --num-prompts 6 --input-len 40 --output-len 8 --trace "$TMP/trace.json"
    "$JSON" "$TMP/trace.json" traceEvents >/dev/null
    steps=$(value "$TMP/run" n_steps)
    equal "$steps" "$(grep -c '"name":"step"' "$TMP/trace.json")"
    equal "$steps" "$(grep -c '"ph":"C".*"name":"KV pages"' "$TMP/trace.json")"
    for segment in wait output; do
        ns=$(grep "\"tid\":0,\"name\":\"$segment\"" "$TMP/trace.json" | sed 's/.*"dur":\([0-9.]*\).*/\1/' |
            awk '{ n += $1 * 1000 } END { printf "%.0f", n }')
        equal "$("$JSON" "$TMP/run/result.json" qdyno/replicas/0/${segment}_ns)" "$ns"
    done
}

what_cannot_be_written_is_refused_first() {
    refuses 2 '--save-steps needs --result-dir' "$QDYNO" run --model "$TINY" --device null --save-steps
    refuses 3 "$TMP/none/trace.json" "$QDYNO" run --model "$TINY" --device null --trace "$TMP/none/trace.json"
}

# A sweep keeps no steps unless it is told to; then each run has its own.
steps_of_a_sweep() {
    exits 0 "$QDYNO" sweep --model "$TINY" --device null --num-prompts 2 --input-len 4 --output-len 2 --tp 1 --dp 1 \
        --budget 64 --repeats 2 --results "$TMP/sweeps" --experiment plain
    equal 0 "$(find "$TMP/sweeps/plain" -name '*steps.jsonl' | wc -l)"
    exits 0 "$QDYNO" sweep --model "$TINY" --device null --num-prompts 2 --input-len 4 --output-len 2 --tp 1 --dp 1 \
        --budget 64 --repeats 2 --results "$TMP/sweeps" --experiment steps --save-steps
    equal 2 "$(find "$TMP/sweeps/steps" -name '*steps.jsonl' | wc -l)"
}

# records OPTION...: a run on cpu whose steps, replayed on cpu, sample the same ids.
records() {
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 8 --input-len 44 --output-len 12 --budget 64 --max-num-seqs 4 "$@" \
        --record "$TMP/steps" --json "$TMP/run.json"
    steps=$("$JSON" "$TMP/run.json" qdyno/ledger/n_steps)
    for async in "" --async-scheduling; do
        # shellcheck disable=SC2086 # a word or none
        exits 0 "$QDYNO" run --model "$TINY" --replay "$TMP/steps" $async --json "$TMP/replay.json"
        equal "$steps" "$("$JSON" "$TMP/replay.json" n_steps)"
        equal 0 "$("$JSON" "$TMP/replay.json" n_different_ids)"
        [ "$("$JSON" "$TMP/replay.json" n_ids)" -ge 96 ] || fail "too few ids"
        below "$("$JSON" "$TMP/replay.json" ledger/waterfall_ns/wall)" "$("$JSON" "$TMP/replay.json" span_ns)"
    done
}

a_replay_samples_what_was_recorded() {
    records
    records --async-scheduling --temperature 0.8 --top-k 20
    records --num-gpu-blocks-override 10 # preemptions
    [ "$("$JSON" "$TMP/run.json" qdyno/preemptions)" -gt 0 ] || fail "nothing was preempted"
    records --enable-prefix-caching --random-prefix-len 32
    [ "$("$JSON" "$TMP/run.json" qdyno/hit_tokens)" -gt 0 ] || fail "nothing was hit"
}

# Every replica's steps on its own group, at the same time; ids and sums as in the run.
replicas_replay_side_by_side() {
    for dp in 2 3; do
        records --dp $dp
        equal $dp "$("$JSON" "$TMP/replay.json" data_parallel_size)"
        for replica in 0 1; do
            equal "$("$JSON" "$TMP/run.json" qdyno/replicas/$replica/n_steps)" \
                "$("$JSON" "$TMP/replay.json" replicas/$replica/n_steps)"
        done
    done
    records --dp 2 --async-scheduling --num-gpu-blocks-override 10
}

# The ledger of a replay: what its host does without a scheduler, over the same tokens.
a_replay_has_a_ledger_and_a_trace() {
    records --dp 2
    exits 0 "$QDYNO" run --model "$TINY" --replay "$TMP/steps" --ledger --probe --trace "$TMP/trace.json" --json "$TMP/replay.json"
    out_has '  = wall '
    out_has 'bound by '
    out_has 'schedule 0.00, prepare 0.00'
    [ "$("$JSON" "$TMP/replay.json" ledger/checks/n_computed_tokens)" -gt 0 ] || fail "no tokens were computed"
    equal "$("$JSON" "$TMP/run.json" qdyno/ledger/checks/n_computed_tokens)" \
        "$("$JSON" "$TMP/replay.json" ledger/checks/n_computed_tokens)"
    equal null "$("$JSON" "$TMP/replay.json" ledger/checks/n_expected_tokens)"
    below 0.01 "$("$JSON" "$TMP/replay.json" ledger/checks/host_unexplained_share)"
    equal "$("$JSON" "$TMP/replay.json" span_ns)" "$("$JSON" "$TMP/replay.json" ledger/waterfall_ns/span)"
    equal "$("$JSON" "$TMP/replay.json" n_steps)" "$(grep -c '"name":"step"' "$TMP/trace.json")"
    "$JSON" "$TMP/trace.json" traceEvents >/dev/null
}

# One GEMM family and one attention kernel: the same bits for the same requests, whatever the replica.
emulated_gpus_replay_bit_for_bit() {
    exits 0 "$QDYNO" run --model "$TINY" --device emu --batch-invariant --dp 2 --num-prompts 4 --input-len 20 --output-len 4 \
        --max-num-seqs 2 --budget 32 --num-warmups 1 --record "$TMP/steps"
    exits 0 "$QDYNO" run --model "$TINY" --device emu --batch-invariant --replay "$TMP/steps" --json "$TMP/replay.json"
    equal 0 "$("$JSON" "$TMP/replay.json" n_different_ids)"
    [ "$("$JSON" "$TMP/replay.json" n_ids)" -ge 16 ] || fail "too few ids"
    out_has 'TP 1 x DP 2'
}

other_devices_replay_too() {
    exits 0 "$QDYNO" run --model "$TINY" --num-prompts 2 --input-len 20 --output-len 4 --max-num-seqs 2 --budget 32 \
        --record "$TMP/steps"
    exits 0 "$QDYNO" run --model "$TINY" --device emu --replay "$TMP/steps"
    out_has 'replayed on emu'
}

replays_that_make_no_sense_are_refused() {
    "$QDYNO" run --model "$TINY" --device null --num-prompts 2 --input-len 20 --output-len 4 --record "$TMP/steps" >"$OUT" 2>"$ERR"
    replays() { refuses 2 "$1" "$QDYNO" run --model "$TINY" --replay "$TMP/steps" $2; }
    replays 'excludes --num-prompts' '--num-prompts 3'
    replays 'excludes --max-num-batched-tokens' '--budget 64'
    replays 'the device null executes nothing' '--device null'
    replays 'n_replicas: 1, but --data-parallel-size is 2' '--dp 2'
    replays 'excludes --save-steps' '--save-steps'
    replays '--machine needs --ledger' '--machine L40S'
    refuses 2 'vocab_size' "$QDYNO" run --model micro --load-format dummy --replay "$TMP/steps"
    refuses 2 "$TMP/none: No such file" "$QDYNO" run --model "$TINY" --replay "$TMP/none"
    refuses 2 'LICENSE: magic: ' "$QDYNO" run --model "$TINY" --replay LICENSE
    head -c 3000 "$TMP/steps" >"$TMP/cut"
    refuses 2 'the file ends in it' "$QDYNO" run --model "$TINY" --replay "$TMP/cut"
}

check a_cpu_has_a_floor_when_it_is_probed
check without_a_probe_the_floor_is_unknown
check without_a_device_all_is_host_time
check a_profile_gives_a_floor_without_a_device
check an_emulated_gpu_tells_its_segments
check a_cpu_tells_its_segments
check the_in_graph_penalty_is_a_number_with_kernels_timed_alone
check the_waterfall_is_drawn
check without_gnuplot_nothing_runs
check a_trace_has_every_step
check what_cannot_be_written_is_refused_first
check steps_of_a_sweep
check a_replay_samples_what_was_recorded
check replicas_replay_side_by_side
check a_replay_has_a_ledger_and_a_trace
check emulated_gpus_replay_bit_for_bit
check other_devices_replay_too
check replays_that_make_no_sense_are_refused
finish
