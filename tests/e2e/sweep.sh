#!/bin/sh
# shellcheck disable=SC2086 # QUICK and SLOW are command lines
# A matrix of runs: rows for what cannot run, resuming, timeouts, crashes, signals, and the report of all that.
. tests/e2e/lib.sh

RESULTS=$TMP/results
PUBLISHED=bench/baselines/published-qwen3-8b/benchmark_results_summary.csv

# Cells that schedule only: a run takes a few hundredths of a second.
QUICK="$QDYNO sweep --results $RESULTS --model $TINY --device null --num-prompts 4 --input-len 16 --output-len 4"

# Cells that would take minutes.
SLOW="$QDYNO sweep --results $RESULTS --model $TINY --num-prompts 64 --input-len 8 --output-len 3000 --num-warmups 0"

runs() { find "$RESULTS/$1" -name 'run=*.json' | sort; }
has_runs() { [ "$(runs "$1" 2>/dev/null | wc -l)" -ge "$2" ]; }

# The process that runs a cell of the sweep with that process id, if it is past its validation.
cell_of() {
    for child in $(cat "/proc/$1/task/$1/children"); do
        if grep -q 'result-dir' "/proc/$child/cmdline"; then echo "$child"; fi
    done
}
runs_a_cell() { kill -0 "$1" || fail "the sweep has ended"; [ -n "$(cell_of "$1")" ]; }

a_matrix_is_measured_and_reported() {
    exits 0 $QUICK --tp 1,2 --dp 1-2 --budget 64-128*2 --num-runs 2 --experiment matrix
    equal "$RESULTS/matrix" "$(cat "$OUT")"
    equal 16 "$(runs matrix | wc -l)"
    equal 2 "$("$JSON" "$RESULTS/matrix/tp=1-dp=2-budget=64/summary.json")"
    equal 2 "$("$JSON" "$RESULTS/matrix/tp=2-dp=1-budget=128/run=1.json" tensor_parallel_size)"
    # The published columns under their names, then ours.
    head -n 1 "$RESULTS/matrix/summary.csv" | grep -q "^$(head -n 1 "$PUBLISHED" | tr -d '\r')," ||
        fail "$(head -n 1 "$RESULTS/matrix/summary.csv")"
    equal 9 "$(wc -l <"$RESULTS/matrix/summary.csv")"
    exits 0 "$QDYNO" report "$RESULTS/matrix"
    for section in Summary Results 'Missing configurations' Recommendations Conclusion; do out_has "## $section"; done
    out_has '0 of 8 expected cells are missing'
}

service_levels_reach_every_run() {
    exits 0 $QUICK --tp 1,2 --num-runs 1 --experiment levels --goodput ttft:1000 tpot:50
    for run in $(runs levels); do
        equal 50 "$("$JSON" "$run" qdyno/goodput/tpot_ms)"
        equal 4 "$("$JSON" "$run" qdyno/goodput/good)"
    done
    exits 0 $QUICK --tp 1,2 --num-runs 1 --experiment levels --goodput tpot:50 ttft:1000 --resume
    refuses 2 'was started with other options' \
        $QUICK --tp 1,2 --num-runs 1 --experiment levels --goodput ttft:1000 tpot:60 --resume
}

a_matrix_has_no_more_gpus_than_allowed() {
    few="$QUICK --tp 1-4*2 --dp 1-4*2 --num-runs 1 --experiment few"
    exits 0 $few --max-gpus 4
    equal 6 "$(runs few | wc -l)"
    exits 0 "$QDYNO" report "$RESULTS/few"
    out_has '0 of 6 expected cells are missing'
    refuses 2 'was started with other options' $few --max-gpus 8 --resume
    refuses 2 'was started with other options' $few --resume
    exits 0 $few --max-gpus 4 --resume
}

cells_that_cannot_run_are_rows_with_the_arithmetic() {
    model=$GOLDENS/tied-gqa2-hd64
    exits 0 "$QDYNO" sweep --results "$RESULTS" --model "$model" --tp 1,8 --budget 16,1048576 \
        --memory-limit 64M --num-prompts 1 --input-len 4 \
        --output-len 2 --num-runs 1 --num-warmups 0 --experiment impossible
    err_has '1 runs, 3 cells refused, 0 failed'
    failure=$RESULTS/impossible/tp=8-budget=16/failed.json
    equal refused "$("$JSON" "$failure" status)"
    equal '4 attention heads do not divide by TP 8' "$("$JSON" "$failure" reason | sed 's/^[^:]*: //')"
    "$JSON" "$RESULTS/impossible/tp=1-budget=1048576/failed.json" reason >"$OUT"
    out_has 'does not fit: weights '
    out_has '(--memory-limit 0.062 GiB x utilization 0.90)'
    [ "$("$JSON" "$RESULTS/impossible/tp=1-budget=1048576/failed.json" needed_bytes)" -gt 60397977 ] ||
        fail "the bytes that are needed"
    equal 60397977 "$("$JSON" "$RESULTS/impossible/tp=1-budget=1048576/failed.json" available_bytes)"
    equal 5 "$(wc -l <"$RESULTS/impossible/summary.csv")"
    exits 0 "$QDYNO" report "$RESULTS/impossible"
    out_has '3 of 4 expected cells are missing'
    out_has '4 attention heads do not divide by TP 8'
    out_has 'does not fit: weights '
}

a_dry_run_prints_what_would_run() {
    exits 0 $QUICK --tp 1,3,2 --num-runs 2 --experiment dry --dry-run
    equal 2 "$(wc -l <"$OUT")"
    out_has "qdyno run --model $TINY"
    out_has '--tensor-parallel-size 2'
    err_has 'tp=3: refused: --tensor-parallel-size: 3 is none of 1, 2, 4, 8'
    [ ! -e "$RESULTS/dry" ] || fail "a dry run wrote something"
}

other_lists_make_variants() {
    exits 0 $QUICK --tp 1,2 --max-num-seqs 1,4 --num-warmups 0,1 --num-runs 1 --experiment variants
    equal "$RESULTS/variants" "$(cat "$OUT")"
    equal 9 "$(wc -l <"$RESULTS/variants/summary.csv")"
    cell=$RESULTS/variants/tp=2-max-num-seqs=4-num-warmups=0
    equal 4 "$("$JSON" "$cell/run=0.json" qdyno/engine/max_num_seqs)"
    equal max-num-seqs=4-num-warmups=0 "$("$JSON" "$cell/run=0.json" qdyno/variant)"
    grep -q '^		"num_warmups":	0' "$cell/summary.json" || fail "summary.json lacks what was overridden"
    exits 0 "$QDYNO" report "$RESULTS/variants"
    out_has '## Variants'
    out_has '# Variant: max-num-seqs=4-num-warmups=0'
    equal 4 "$(grep -c '0 of 2 expected cells are missing' "$OUT")"
    exits 0 "$QDYNO" report "$RESULTS/variants" --matrix 'tp=1,2,4;dp=1;budget=2048'
    equal 4 "$(grep -c '^1 of 3 expected cells are missing\.' "$OUT")"
    exits 0 $QUICK --tp 1,2 --max-num-seqs 1,4 --num-warmups 0,1 --num-runs 1 --experiment variants --resume
    exits 0 $QUICK --num-runs 1 --experiment single
    [ -f "$RESULTS/single/all/run=0.json" ] || fail "no run of the only cell"
}

# Every request of one cell is too long: its run is there and says so, and so does the exit code, resumed or not.
a_run_without_a_completed_request_is_partial() {
    empty="$QDYNO sweep --results $RESULTS --model $TINY --device null --num-prompts 4 --input-len 16,4096 --num-runs 1 \
        --output-len 4 --experiment empty"
    exits 5 $empty
    err_has 'input-len=4096: run 0: no request completed; the first of 4: refused: prompt of 4096 tokens'
    err_has '2 runs (1 without a completed request), 0 cells refused, 0 failed'
    equal 2 "$(runs empty | wc -l)"
    grep -q ',empty,.*,no request completed in 1 of 1 runs,input-len=4096' "$RESULTS/empty/summary.csv" ||
        fail "$(cat "$RESULTS/empty/summary.csv")"
    exits 5 $empty --resume
    err_has '2 runs (1 without a completed request), 0 cells refused, 0 failed'
}

experiments_are_not_overwritten() {
    exits 0 $QUICK --tp 1,2 --num-runs 1 --experiment first
    refuses 2 'first exists (use --resume to continue it)' $QUICK --tp 1,2 --num-runs 1 --experiment first
    refuses 2 'was started with other options' $QUICK --tp 1,2,4 --num-runs 1 --experiment first --resume
    refuses 2 'was started with other options' $QUICK --tp 1,2 --num-runs 1 --experiment first --resume --seed 3
    refuses 2 'no experiment in' $QUICK --tp 1,2 --experiment second --resume
    refuses 2 'is no folder name' $QUICK --tp 1,2 --experiment ../up
    sed 's/"commit":\([^"]*\)"[^"]*"/"commit":\1"older"/' "$RESULTS/first/experiment.json" >"$TMP/older.json"
    cp "$TMP/older.json" "$RESULTS/first/experiment.json"
    refuses 2 'was started by commit older' $QUICK --tp 1,2 --num-runs 1 --experiment first --resume
    echo '{' >"$RESULTS/first/experiment.json"
    refuses 2 'experiment.json: byte ' $QUICK --tp 1,2 --num-runs 1 --experiment first --resume
    rm "$RESULTS/first/experiment.json"
    refuses 2 'experiment.json: No such file' $QUICK --tp 1,2 --num-runs 1 --experiment first --resume
}

what_is_wrong_for_all_cells_is_no_row() {
    refuses 2 'nowhere is no folder' "$QDYNO" sweep --results "$RESULTS" --model nowhere --tp 1,2 --experiment wrong
    refuses 2 'micro is a preset, not a folder' "$QDYNO" sweep --results "$RESULTS" --model micro --tp 1,2 --experiment wrong
    refuses 2 'nowhere.jsonl: No such file' \
        "$QDYNO" sweep --results "$RESULTS" --model "$TINY" --tp 1,2 --dataset-name custom --dataset-path nowhere.jsonl --experiment wrong
    refuses 2 '--machine needs --ledger' $QUICK --tp 1,2 --machine L40S --experiment wrong
    refuses 2 'no machine nosuch' $QUICK --tp 1,2 --machine nosuch --ledger --experiment wrong
    refuses 2 '--max-num-batched-tokens: 0 is outside' $QUICK --budget 64,0 --experiment wrong
    printf '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": 7}\n' >"$TMP/bad.jsonl"
    bad="$QDYNO sweep --results $RESULTS --model $TINY --device null --dataset-name custom --dataset-path $TMP/bad.jsonl"
    for dry in '' --dry-run; do
        refuses 2 "$TMP/bad.jsonl: line 3: \"prompt\" is no text" $bad --tp 1,2 $dry --experiment wrong
        refuses 2 "$TMP/bad.jsonl: line 3: " $bad --num-prompts 1,3 $dry --experiment wrong
    done
    exits 0 $bad --num-prompts 1,2 --dry-run
    cp -r "$TINY" "$TMP/broken"
    echo '{' >"$TMP/broken/tokenizer.json"
    refuses 2 "$TMP/broken/tokenizer.json: " \
        "$QDYNO" sweep --results "$RESULTS" --model "$TMP/broken" --device null --tp 1,2 --experiment wrong
    [ ! -e "$RESULTS/wrong" ] || fail "something was written"
}

more_repeats_are_added_by_resuming() {
    exits 0 $QUICK --tp 1,2 --num-runs 1 --experiment more
    runs more | xargs ls --full-time -i >"$TMP/before"
    exits 0 $QUICK --tp 1,2 --num-runs 3 --experiment more --resume
    equal 6 "$(runs more | wc -l)"
    ls --full-time -i "$RESULTS"/more/*/run=0.json >"$TMP/after"
    same "$TMP/before" "$TMP/after"
}

# SIGKILL as the kernel sends it when memory runs out; then nothing is left running, nothing torn.
a_killed_sweep_resumes() {
    start $QUICK --tp 1,2,4 --dp 1,2 --budget 32-128*2 --num-runs 3 --experiment killed
    wait_for 60 has_runs killed 5
    kill -KILL "$background"
    ends 137
    n=$(runs killed | wc -l)
    [ "$n" -lt 54 ] || skip "the sweep was faster than the kill"
    runs killed | xargs ls --full-time -i >"$TMP/before"
    exits 0 $QUICK --tp 1,2,4 --dp 1,2 --budget 32-128*2 --num-runs 3 --experiment killed --resume
    equal 54 "$(runs killed | wc -l)"
    runs killed | xargs ls --full-time -i | grep -Fxf "$TMP/before" | cmp - "$TMP/before" ||
        fail "earlier runs changed"
    equal 19 "$(wc -l <"$RESULTS/killed/summary.csv")"
    runs killed | while read -r file; do equal 4 "$("$JSON" "$file" completed)"; done
}

a_cell_that_takes_too_long_is_a_row() {
    exits 5 $SLOW --tp 1,2 --num-runs 2 --cell-timeout 1 --experiment late
    err_has 'tp=1: timeout: stopped after --cell-timeout 1 s'
    err_has '0 runs, 0 cells refused, 2 failed'
    equal 0 "$(runs late | wc -l)"
    [ -f "$RESULTS/late/tp=1/partial-run=0.json" ] || fail "what was measured is not kept"
    exits 0 "$QDYNO" report "$RESULTS/late"
    out_has '2 of 2 expected cells are missing'
    out_has 'stopped after --cell-timeout 1 s'
}

# From outside, as when memory runs out.
a_cell_that_is_killed_is_a_row() {
    start $SLOW --budget 64,128 --num-runs 1 --cell-timeout 1 --experiment crash
    wait_for 60 runs_a_cell "$background"
    kill -KILL "$(cell_of "$background")"
    ends 5
    err_has 'budget=64: crashed: ended by signal 9'
    err_has 'budget=128: timeout: '
    failure=$RESULTS/crash/budget=64/failed.json
    equal crashed "$("$JSON" "$failure" status)"
    equal 9 "$("$JSON" "$failure" signal)"
    exits 0 "$QDYNO" report "$RESULTS/crash"
    out_has 'ended by signal 9'
}

an_interrupted_sweep_resumes() {
    start $SLOW --tp 1,2 --num-runs 2 --experiment stopped
    wait_for 60 runs_a_cell "$background"
    cell=$(cell_of "$background")
    sleep 0.3
    kill -INT "$background"
    ends 130
    [ ! -d "/proc/$cell" ] || fail "the cell runs on"
    err_has '--experiment stopped --resume continues'
    equal 0 "$(runs stopped | wc -l)"
    exits 5 $SLOW --tp 1,2 --num-runs 2 --experiment stopped --resume --cell-timeout 1
    err_has '0 runs, 0 cells refused, 2 failed'
}

a_cell_ends_with_its_sweep() {
    start $SLOW --num-runs 1 --experiment orphan
    wait_for 60 runs_a_cell "$background"
    cell=$(cell_of "$background")
    kill -KILL "$background"
    ends 137
    wait_for 5 is_gone "$cell"
}

is_gone() { ! grep -q '^State:.[RSD]' "/proc/$1/status" 2>/dev/null; }

the_published_report_says_its_own_numbers() {
    exits 0 "$QDYNO" report "$PUBLISHED"
    for number in 29.90 1081.40 24.85 30840.69 -0.74 -6.11 -3.41 -0.68 -4.14 -11.07 -8.32 -14.48 1.23; do
        out_has "$number"
    done
    out_has '4 of 40 expected cells are missing'
    out_has 'per-request tok/s'
    exits 0 "$QDYNO" report "$PUBLISHED" --matrix 'tp=1,2;dp=1;budget=2048,4096'
    refuses 2 "matrix: unknown axis 'nope'" "$QDYNO" report "$PUBLISHED" --matrix 'tp=1;nope=3'
    refuses 2 'nowhere' "$QDYNO" report nowhere
    refuses 2 'no cell of a sweep inside' "$QDYNO" report tests
    printf 'TP,DP\n1,x\n' >"$TMP/bad.csv"
    refuses 2 "$TMP/bad.csv:1: " "$QDYNO" report "$TMP/bad.csv"
}

check a_matrix_is_measured_and_reported
check service_levels_reach_every_run
check a_matrix_has_no_more_gpus_than_allowed
check cells_that_cannot_run_are_rows_with_the_arithmetic
check a_dry_run_prints_what_would_run
check other_lists_make_variants
check a_run_without_a_completed_request_is_partial
check experiments_are_not_overwritten
check what_is_wrong_for_all_cells_is_no_row
check more_repeats_are_added_by_resuming
check a_killed_sweep_resumes
check a_cell_that_takes_too_long_is_a_row
check a_cell_that_is_killed_is_a_row
check an_interrupted_sweep_resumes
check a_cell_ends_with_its_sweep
check the_published_report_says_its_own_numbers
finish
