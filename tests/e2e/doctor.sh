#!/bin/sh
# doctor: what it finds, as text and as JSON, its exit code and its last line; on machines that are played by the fakes of
# tests/fakes/.
# shellcheck shell=sh
. tests/e2e/lib.sh

# Leak checking dies now and then of what CUDA's libraries, opened and closed, had in thread-local storage.
export ASAN_OPTIONS=detect_leaks=0

FAKES=$PWD/$BUILD/tests/fakes
case $BUILD in /*) FAKES=$BUILD/tests/fakes ;; esac

last_line_has() { tail -n 1 "$OUT" | grep -qF -e "$1" || fail "the last line does not say \"$1\""; }

# A program without and one with a device cuda, which is the fake.
programs() {
    mkdir -p "$TMP/plain" "$TMP/built"
    cp "$QDYNO" "$TMP/plain/qdyno"
    cp "$QDYNO" "$TMP/built/qdyno"
    cp "$FAKES/libqdyno_cuda.so" "$TMP/built/"
}

# The fakes in the place of NVIDIA's libraries.
faked() { env LD_LIBRARY_PATH="$FAKES" "$@"; }

the_cpu_is_judged_where_cuda_is_not_built() {
    programs
    exits 0 "$TMP/plain/qdyno" doctor
    out_has 'device     cpu: inference'
    out_has 'device     cuda: no: the device cuda is not built'
    out_has 'self-test of every kernel on cpu'
    equal 17 "$(sed -n '/worst error/,/^$/p' "$OUT" | awk 'NF >= 5 && $2 > 0 && $2 == $3 && $4 == 0' | wc -l)"
    last_line_has 'the device cpu can be used'
    exits 3 "$TMP/plain/qdyno" doctor --device cuda
    last_line_has 'to fix first, for the device cuda: the device cuda is not built'
}

the_null_device_has_no_kernels() {
    exits 0 "$QDYNO" doctor --device null
    out_lacks 'self-test'
    last_line_has 'the device null can be used'
}

a_good_gpu_machine_passes() {
    programs
    exits 0 faked "$TMP/built/qdyno" doctor
    out_has 'toolkit    CUDA 13.0, code for GPUs of capability 80 90'
    out_has 'driver     needed: 580.65.06 or newer'
    out_has 'driver     found: 580.65.06, runs CUDA 13.0'
    out_has 'gpu 0      NVIDIA Fake 80GB, sm_90, 00000000:3B:00.0, 79.16 of 80.00 GiB free, 1 other processes'
    out_has 'SM 1410 of 1980 MHz, memory 2600 of 2619 MHz'
    out_has '312345 of 700000 mW, 61 C, throttled by: power cap, thermal'
    out_has 'ECC on, MIG off, NUMA node 3'
    out_has 'ECC not told, MIG not told, NUMA node ?'
    out_has 'peers      0 and 1: '
    last_line_has 'the device cuda can be used'
}

what_is_to_be_fixed_is_the_last_line() {
    programs
    exits 3 faked env QD_FAKE_CUDA=12040 "$TMP/built/qdyno" doctor
    last_line_has 'the NVIDIA driver is too old: it runs CUDA 12.4, this build is of CUDA 13.0: install driver 580.65.06'
    exits 3 faked env QD_FAKE_GPUS=none "$TMP/built/qdyno" doctor
    last_line_has 'there is no GPU that CUDA can use: none is visible'
    exits 3 faked env QD_FAKE_NVML=lost "$TMP/built/qdyno" doctor
    last_line_has 'GPU 0 does not answer: '
    exits 0 faked env QD_FAKE_NVML=no_driver "$TMP/built/qdyno" doctor
    out_has 'libnvidia-ml.so.1, but NVML: starting it: Driver Not Loaded'
    exits 0 faked env QD_FAKE_CUDA=12040 "$TMP/built/qdyno" doctor --device cpu
    echo "no object" >"$TMP/built/libqdyno_cuda.so"
    exits 3 faked "$TMP/built/qdyno" doctor
    last_line_has 'libqdyno_cuda.so: '
}

# Whichever of them are on this machine.
every_library_is_found_or_disables_something() {
    exits 0 "$QDYNO" doctor --device null
    grep '^library    ' "$OUT" >"$TMP/libraries"
    equal 4 "$(wc -l <"$TMP/libraries")"
    equal 4 "$(grep -cE ': /|; without it, [a-z]' "$TMP/libraries")"
    for name in 'the CUDA driver' NVML NCCL cuBLASLt; do grep -q "$name" "$TMP/libraries" || fail "no line of $name"; done
    grep -q '^library    the CUDA driver.*: /' "$TMP/libraries" || out_has '; without it, there is no device cuda'
}

# On this machine, with or without a GPU: the same judgement as that of a run.
it_agrees_with_a_run() {
    programs
    status=0
    "$TMP/built/qdyno" doctor >"$OUT" 2>"$ERR" || status=$?
    if ls /dev/nvidia[0-9]* >/dev/null 2>&1; then skip "a GPU is here, which the fake device does not use"; fi
    equal 3 "$status"
    last_line_has 'no NVIDIA driver: install driver 580.65.06 or newer'
    [ -e "$BUILD/libqdyno_cuda.so" ] || return 0
    refuses 3 'there is no GPU that CUDA can use' "$QDYNO" generate --device cuda --model "$TINY" --prompt a
}

json_has_what_the_text_has() {
    programs
    exits 0 faked "$TMP/built/qdyno" doctor --json "$TMP/doctor.json"
    out_has 'the device cuda can be used'
    exits 0 faked "$TMP/built/qdyno" doctor --json -
    for file in "$TMP/doctor.json" "$OUT"; do
        equal "true null cuda" "$("$JSON" "$file" ok) $("$JSON" "$file" fix) $("$JSON" "$file" device)"
        equal "13000 580.65.06" "$("$JSON" "$file" cuda/toolkit) $("$JSON" "$file" cuda/driver_needed)"
        equal "2 1" "$("$JSON" "$file" gpus) $("$JSON" "$file" peers)"
        equal "1410 700000 1 3" "$("$JSON" "$file" gpus/0/sm_mhz) $("$JSON" "$file" gpus/0/power_limit_mw) $("$JSON" "$file" gpus/0/ecc) $("$JSON" "$file" gpus/0/numa_node)"
        equal null "$("$JSON" "$file" gpus/1/ecc)"
        equal 4 "$("$JSON" "$file" libraries)"
        equal "CUDA 13.0" "$("$JSON" "$file" libraries/0/version)"
        for key in version commit machine usable_memory_bytes memlock_bytes numa_nodes driver driver_cuda self_test; do
            "$JSON" "$file" $key >/dev/null || fail "no $key"
        done
    done
    exits 3 faked env QD_FAKE_GPUS=none "$TMP/built/qdyno" doctor --json -
    equal "false 0" "$("$JSON" "$OUT" ok) $("$JSON" "$OUT" cuda/gpus)"
    "$JSON" "$OUT" fix | grep -q 'there is no GPU'
    exits 0 "$TMP/plain/qdyno" doctor --device cpu --json -
    equal "17 null" "$("$JSON" "$OUT" self_test) $("$JSON" "$OUT" self_test/0/failure)"
    equal "$("$JSON" "$OUT" self_test/2/cases)" "$("$JSON" "$OUT" self_test/2/passed)"
    refuses 3 'nowhere/doctor.json' "$QDYNO" doctor --device cpu --json nowhere/doctor.json
}

a_model_that_does_not_fit_is_said_in_both() {
    exits 3 "$QDYNO" doctor --device cpu --model 32B --memory-limit 4G --json "$TMP/doctor.json"
    err_has 'does not fit'
    out_has 'per rank   weights '
    out_lacks 'can be used'
    equal false "$("$JSON" "$TMP/doctor.json" ok)"
    exits 0 "$QDYNO" doctor --device cpu --model micro
    out_has 'fits       max_model_len'
}

emulated_gpus_pass_the_self_test() {
    case $BUILD in *address* | *thread*) skip "sanitizers make it slow, and other tests cover what it runs" ;; esac
    exits 0 "$QDYNO" doctor --device emu
    equal 17 "$(sed -n '/worst error/,/^$/p' "$OUT" | awk 'NF >= 5 && $2 > 0 && $2 == $3 + $4' | wc -l)"
    last_line_has 'the device emu can be used'
}

check the_cpu_is_judged_where_cuda_is_not_built
check the_null_device_has_no_kernels
check a_good_gpu_machine_passes
check what_is_to_be_fixed_is_the_last_line
check every_library_is_found_or_disables_something
check it_agrees_with_a_run
check json_has_what_the_text_has
check a_model_that_does_not_fit_is_said_in_both
check emulated_gpus_pass_the_self_test
finish
