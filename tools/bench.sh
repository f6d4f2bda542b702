#!/bin/sh
# Speed of this machine's kernels against its probed limits; `make bench` builds what it needs. Tables on stdout.
set -eu

build=${BUILD:-build/release}
"$build/bench/cpu"
echo
"$build/bench/model" --model 0.6B --load-format dummy
