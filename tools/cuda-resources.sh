#!/bin/sh
# What each CUDA kernel takes of an SM: compiles every kernels/cuda/*.cu alone, warnings as errors, for each of
# ARCHITECTURES (and as compute_80 PTX beside), and prints a line a kernel and architecture, tabs between:
#   kernel  architecture  registers  static shared bytes  stack bytes  spilled bytes
# Keeps the cubins in DIR. Exits 1 when a file does not compile, 3 without nvcc.
#   NVCC=nvcc tools/cuda-resources.sh DIR
set -u

ARCHITECTURES='80 86 89 90' # those of the portable archive
dir=${1:?usage: tools/cuda-resources.sh DIR}
nvcc=$(command -v "${NVCC:-}") || {
    echo "cuda-resources: no nvcc in PATH or CUDA_HOME" >&2
    exit 3
}
mkdir -p "$dir"
table=$dir/resources.raw
: >"$table"

for source in kernels/cuda/*.cu; do
    stem=$(basename "$source" .cu)
    for arch in $ARCHITECTURES; do
        log=$dir/$stem.$arch.log
        "$nvcc" -std=c++17 -O3 -I. -Werror all-warnings -Xptxas -v -gencode "arch=compute_$arch,code=sm_$arch" \
            -cubin -o "$dir/$stem.$arch.cubin" "$source" >"$log" 2>&1 || {
            cat "$log" >&2
            exit 1
        }
        awk -v arch="sm_$arch" '
            /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
            /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
            /Used [0-9]+ registers/ {
                shared = 0
                if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
                match($0, /Used [0-9]+/)
                print name "\t" arch "\t" substr($0, RSTART + 5, RLENGTH - 5) "\t" shared "\t" stack "\t" spilled
            }' "$log" >>"$table"
    done
    "$nvcc" -std=c++17 -O3 -I. -Werror all-warnings -arch=compute_80 -ptx -o "$dir/$stem.ptx" "$source" || exit 1
done
c++filt <"$table" | sed -E 's/^void //; s/\([a-z_:]+\)([0-9])/\1/g; s/\(.*\)\t/\t/' | LC_ALL=C sort
