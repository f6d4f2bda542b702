#!/bin/sh
# Help, version, and what the command line refuses.
. tests/e2e/lib.sh

# Leak checking dies now and then of what CUDA's libraries, opened and closed, had in thread-local storage.
export ASAN_OPTIONS=detect_leaks=0

commands='run sweep report generate eval tokenize doctor'

help_goes_to_stdout() {
    exits 0 "$QDYNO" --help
    [ ! -s "$ERR" ] || fail "help on standard error"
    for command in $commands; do out_has "  $command"; done
    for command in $commands; do
        exits 0 "$QDYNO" "$command" --help
        out_has "usage: qdyno $command"
        [ ! -s "$ERR" ] || fail "help on standard error"
        exits 0 "$QDYNO" "$command" -h
        out_has "usage: qdyno $command"
    done
}

version_names_commit_schema_devices() {
    exits 0 "$QDYNO" --version
    grep -qE '^qdyno [0-9]+\.[0-9]+\.[0-9]+, commit [0-9a-z-]+, result schema [0-9]+, devices: cpu emu null( cuda)?$' "$OUT" ||
        fail "version line"
}

nothing_and_unknown_words_are_refused() {
    refuses 2 'usage: qdyno COMMAND' "$QDYNO"
    refuses 2 'unknown command "bench"' "$QDYNO" bench
    for command in $commands; do
        refuses 2 "qdyno: $command: unknown option --nope" "$QDYNO" "$command" --nope 1
    done
}

bad_values_are_refused() {
    refuses 2 '--model is missing' "$QDYNO" run
    refuses 2 '--running: "0" is no number from 1' "$QDYNO" sched --running 4,0
    refuses 2 '--waiting: ' "$QDYNO" sched --waiting 9-1
    refuses 2 '--max-num-batched-tokens: "12x" is not a whole number' "$QDYNO" run --model "$TINY" --budget 12x
    refuses 2 '--max-num-batched-tokens: 0 is outside' "$QDYNO" run --model "$TINY" --budget 0
    refuses 2 '--temperature: -1 is outside' "$QDYNO" generate --model "$TINY" --temperature -1
    refuses 2 '--tensor-parallel-size: 3 is none of 1, 2, 4, 8' "$QDYNO" doctor --model "$TINY" --tp 3
    refuses 2 '--device: "gpu" is none of cpu|emu|cuda|null' "$QDYNO" eval --model "$TINY" --device gpu
    refuses 2 '--max-tokens needs a value' "$QDYNO" generate --model "$TINY" --max-tokens
    refuses 2 'is given twice' "$QDYNO" run --model "$TINY" --tp 1 --tensor-parallel-size 2
    refuses 2 'unexpected argument "extra"' "$QDYNO" doctor extra
    refuses 2 'name one results directory or CSV file' "$QDYNO" report
    refuses 2 'either --tokens or --expect is needed' "$QDYNO" eval --model "$TINY"
    refuses 2 '--resume needs --experiment' "$QDYNO" sweep --model "$TINY" --resume
}

explicit_budget_below_sequences_is_refused() {
    refuses 2 '--max-num-batched-tokens 64 is smaller than --max-num-seqs 65' \
        "$QDYNO" run --model "$TINY" --budget 64 --max-num-seqs 65
}

# Output that cannot be written is an error of the environment, whatever the command.
full_disk_is_noticed() {
    [ -w /dev/full ] || skip "no /dev/full here"
    echo '{"prompts": [[1, 2]]}' >"$TMP/tokens.json"
    for words in --help "doctor --device cpu" "tokenize --model $TINY" "generate --model $TINY --prompt a --max-tokens 2" \
        "eval --model $TINY --tokens $TMP/tokens.json" "report bench/baselines/published-qwen3-8b/benchmark_results_summary.csv" \
        "run --model $TINY --device null --num-prompts 2 --json -" \
        "sched --running 4 --steps 10"; do
        status=0
        # shellcheck disable=SC2086 # words of a command line
        "$QDYNO" $words </dev/null >/dev/full 2>"$ERR" || status=$?
        : >"$OUT"
        equal "3 $words" "$status $words"
        err_has "writ"
    done
}

check help_goes_to_stdout
check version_names_commit_schema_devices
check nothing_and_unknown_words_are_refused
check bad_values_are_refused
check explicit_budget_below_sequences_is_refused
check full_disk_is_noticed
finish
