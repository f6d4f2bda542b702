#!/bin/sh
# Runs tests (cmocka binaries, and scripts that print the same lines) and, after `--`, fuzz targets over their
# fixed corpora; the last line counts passed, failed and skipped over all of them. Exits 1 when anything failed.
#   tools/run-tests.sh TEST... [-- FUZZ_TARGET...]
#   TEST_ARGS=...   what each test gets as arguments
set -u

passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    name=${1#"${BUILD:-build}"/}
    # shellcheck disable=SC2086 # a list of arguments
    "$1" ${TEST_ARGS:-} >"$log" 2>&1
    status=$?
    ok=$(grep -c '^\[       OK \]' "$log")
    # cmocka lists each failed or skipped test once while running and once in its summary.
    bad=$(grep '^\[  FAILED  \] ' "$log" | grep -v 'test(s)' | sort -u | wc -l)
    skip=$(grep '^\[  SKIPPED \] ' "$log" | grep -v 'test(s)' | sort -u | wc -l)
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%s: %d passed, %d failed, %d skipped\n' "$name" "$ok" "$bad" "$skip"
    [ "$bad" -gt 0 ] && { echo "--- output of $name (exit status $status)"; tail -n 60 "$log"; echo "---"; }
    [ "$skip" -gt 0 ] && grep '^skip: ' "$log"
    shift
done
[ "${1:-}" = -- ] && shift

for target in "$@"; do
    name=$(basename "$target")
    if "$target" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        passed=$((passed + 1))
        printf 'fuzz/%s: %s\n' "$name" "$(tail -n 1 "$log")"
    else
        failed=$((failed + 1))
        printf 'fuzz/%s: FAILED\n' "$name"
        tail -n 30 "$log"
    fi
done

printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
