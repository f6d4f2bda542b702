#!/bin/sh
# The kernel tests on this machine's GPU, then, where the program and its device cuda are built, the golden models and
# the tiny model's text there. Without nvcc or a GPU: skipped with the reason, or a failure with REQUIRE_CUDA=1.
#   NVCC=... BUILD=... MAKE=... tools/gpu-test.sh TEST...
set -u

skip_all() {
    if [ -n "${REQUIRE_CUDA:-}" ] && [ "$REQUIRE_CUDA" != 0 ]; then
        echo "gpu-test: $1, and REQUIRE_CUDA is set" >&2
        exit 1
    fi
    echo "gpu-test: skipped: $1"
    exit 0
}

[ -n "$NVCC" ] || skip_all "no nvcc in PATH or CUDA_HOME"
# Under WSL 2 a GPU has no device file, but Windows' driver is mounted.
ls /dev/nvidia[0-9]* /usr/lib/wsl/lib/libcuda.so.1 2>/dev/null | grep -q . ||
    skip_all "no GPU: there is neither /dev/nvidia0 nor /usr/lib/wsl/lib/libcuda.so.1"

$MAKE gpu-test-binaries || exit 1
tests="$*"
if [ -x "$BUILD/qdyno" ] && [ -e "$BUILD/libqdyno_cuda.so" ]; then
    tests="$tests tests/gpu/text.sh"
    if [ -x "$BUILD/tests/golden/gpu" ]; then
        ln -sfn ../../libqdyno_cuda.so "$BUILD/tests/golden/libqdyno_cuda.so" # it looks beside itself
        tests="$tests $BUILD/tests/golden/gpu"
    fi
else
    echo "gpu-test: no models: $BUILD has no qdyno with a libqdyno_cuda.so (make, make cuda)"
fi
# shellcheck disable=SC2086 # a list of paths without blanks
QDYNO="$BUILD/qdyno" exec tools/run-tests.sh $tests
