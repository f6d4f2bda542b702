#!/bin/sh
# Speed of this machine's kernels against its probed limits; `make bench` builds what it needs. Tables on stdout.
set -eu

build=${BUILD:-build/release}
for threads in 1 0; do # one, then all cores
    echo "threads: $threads (0: all cores)"
    "$build/qdyno" kernels --model 0.6B --op gemm_nt --tokens 1,2,4,8,16,64,512 --threads "$threads"
done
"$build/bench/model" --model 0.6B --load-format dummy
