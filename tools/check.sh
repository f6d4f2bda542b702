#!/bin/sh
# The tests under sanitizers and the fuzzers: what `make check` runs. Last line as `make test`.
#   FUZZ_SECONDS=30   how long each fuzz target runs after its fixed corpus
set -u

seconds=${FUZZ_SECONDS:-30}
jobs=$(nproc)
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Adds the counts of a run-tests.sh run whose output is in $log.
add_counts() {
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    if [ -z "$line" ]; then
        echo "check: $1 did not build or run"
        failed=$((failed + 1))
        return
    fi
    # shellcheck disable=SC2086 # split into words on purpose
    set -- $line
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
}

show() { grep -vE '^  (CC|CXX|LD|NVCC|PTX) |^make|^[0-9]+ passed' "$log"; }

echo "== AddressSanitizer and UndefinedBehaviorSanitizer, every test"
{ make -j"$jobs" --no-print-directory SAN=address,undefined tests &&
    make --no-print-directory SAN=address,undefined test; } >"$log" 2>&1
show
add_counts "the AddressSanitizer build"

echo "== ThreadSanitizer, what has threads"
threaded='tests/base/team tests/kernels/bootstrap tests/kernels/group tests/harness/engine tests/harness/replay
    tests/harness/step_log tests/harness/workload_drive'
build=build/release-thread
targets=
for test in $threaded; do
    for source in "$test".c "${test}"_*.c; do
        [ -e "$source" ] && targets="$targets $build/${source%.c}"
    done
done
# shellcheck disable=SC2086 # a list of targets
{ make -j"$jobs" --no-print-directory SAN=thread $targets &&
    BUILD=$build tools/run-tests.sh $targets; } >"$log" 2>&1
show
add_counts "the ThreadSanitizer build"

# Warps that meet at an instruction also meet in the emulator, so that a missing __syncwarp shows here alone. One fixed
# schedule and few shapes: order is what counts. File, then its tests (none: all).
check_kernel_races() {
    QD_GPU_SEEDS=0
    export QD_GPU_SEEDS
    while read -r name names; do
        { make -j"$jobs" --no-print-directory CC=clang SAN=thread "$build/tests/gpu/$name" &&
            BUILD=$build TEST_ARGS=$names tools/run-tests.sh "$build/tests/gpu/$name"; } >"$log" 2>&1
        show
        add_counts "the ThreadSanitizer build of tests/gpu/$name"
    done <<'EOF'
attention_decode groups empty_parts
attention_prefill groups
gemm_skinny epilogues
gemm_tile ring_wraps
qk_norm_rope_kv
reduce_add_rmsnorm
rmsnorm
EOF
    unset QD_GPU_SEEDS
}

# Every CUDA thread is a thread to it. clang's runtime makes one in microseconds, gcc's in milliseconds.
echo "== ThreadSanitizer, emulated kernels"
build=build/release-thread-clang
mkdir -p "$build"
if echo 'int main(void) { return 0; }' | clang -fsanitize=thread -x c -o "$build/probe" - 2>"$log" &&
    "$build/probe" >"$log" 2>&1; then
    targets=
    for source in tests/emu/*.c; do targets="$targets $build/${source%.c}"; done
    # shellcheck disable=SC2086 # a list of targets
    { make -j"$jobs" --no-print-directory CC=clang SAN=thread $targets &&
        BUILD=$build tools/run-tests.sh $targets; } >"$log" 2>&1
    show
    add_counts "the ThreadSanitizer build of emulated kernels"
    check_kernel_races
else
    echo "skip: ThreadSanitizer does not run here: $(tail -n 1 "$log")"
    skipped=$((skipped + 1))
fi

echo "== PTX, emulated kernels"
make --no-print-directory ptx-test >"$log" 2>&1
show
add_counts "the kernel tests on PTX"

echo "== what is known of the CUDA kernels without running them"
make --no-print-directory gates >"$log" 2>&1
show
add_counts "the gates"

echo "== the device cuda, for every GPU that nvcc knows"
if ! make --no-print-directory need-nvcc >"$log" 2>&1; then
    echo "skip: $(head -n 1 "$log")"
    skipped=$((skipped + 1))
elif make -j"$jobs" --no-print-directory BUILD=build/every-arch CUARCH=all build/every-arch/libqdyno_cuda.so >"$log" 2>&1; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    tail -n 30 "$log"
fi

echo "== the portable archive"
if make --no-print-directory portable >"$log" 2>&1; then
    archive=$(sed -n 's/^\(build.*\.tar\.xz\): .*/\1/p' "$log")
    PORTABLE=$archive BUILD=build/release QDYNO=build/release/qdyno tools/run-tests.sh tests/e2e/portable.sh >"$log" 2>&1
    show
    add_counts "the portable archive"
else
    failed=$((failed + 1))
    tail -n 30 "$log"
fi

echo "== fuzzers, $seconds s each"
fuzz_build=build/fuzz
mkdir -p "$fuzz_build"
parsers=build/release-fuzzer-no-link-address-undefined-clang/libparsers.a
make -j"$jobs" --no-print-directory CC=clang SAN=fuzzer-no-link,address,undefined "$parsers" >"$log" 2>&1 || show
for source in tests/fuzz/*.c; do
    name=$(basename "$source" .c)
    [ "$name" = driver ] && continue
    corpus=$fuzz_build/$name.corpus
    mkdir -p "$corpus"
    if clang -std=c11 -D_GNU_SOURCE -g -O1 -I. -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -o "$fuzz_build/$name" "$source" "$parsers" \
        -lcjson -lpcre2-8 -lutf8proc -lm -pthread >"$log" 2>&1 &&
        "$fuzz_build/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -artifact_prefix="$fuzz_build/" \
            -print_final_stats=1 "$corpus" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "fuzz/$name: $(grep -o 'stat::number_of_executed_units: *[0-9]*' "$log" | grep -o '[0-9]*$') executions"
    else
        failed=$((failed + 1))
        echo "fuzz/$name: FAILED (inputs in $fuzz_build/)"
        tail -n 30 "$log"
    fi
done

printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
