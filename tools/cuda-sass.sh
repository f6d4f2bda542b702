#!/bin/sh
# Counts what matters in the machine code of CUDA kernels: a line a kernel of each cubin given, tabs between:
#   kernel  HMMA  LDSM  LDGSTS.128  LDGSTS other  LDG.128  LDG other  STG.128  STG other  local loads and stores
# Takes cuobjdump and nvdisasm from beside nvcc or PATH, else installs both from PyPI into DIR. Exits 3 with the reason
# when neither can be had.
#   NVCC=nvcc tools/cuda-sass.sh DIR CUBIN...
set -u

dir=${1:?usage: tools/cuda-sass.sh DIR CUBIN...}
shift
nvcc=$(command -v "${NVCC:-}") && PATH=$(dirname "$nvcc"):$PATH

from_pypi() {
    if [ ! -d "$dir/venv" ]; then
        python3 -m venv "$dir/venv" >"$dir/venv.log" 2>&1 &&
            "$dir/venv/bin/pip" install -q nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm >>"$dir/venv.log" 2>&1 || {
            rm -rf "$dir/venv"
            return 1
        }
    fi
    for tool in "$dir"/venv/lib/python*/site-packages/nvidia/*/bin; do
        chmod +x "$tool"/*
        PATH=$PATH:$(cd "$tool" && pwd)
    done
}

mkdir -p "$dir"
if ! { command -v cuobjdump && command -v nvdisasm; } >/dev/null; then
    from_pypi || {
        echo "cuda-sass: no cuobjdump and nvdisasm on PATH, and PyPI gave none (see $dir/venv.log)" >&2
        exit 3
    }
fi

listing=$dir/sass.txt
: >"$listing"
for cubin in "$@"; do
    cuobjdump -sass "$cubin" >>"$listing" || exit 1
done
awk '
    function put() {
        if (name != "")
            print name "\t" n["HMMA"] + 0 "\t" n["LDSM"] + 0 "\t" n["LDGSTS128"] + 0 "\t" n["LDGSTS"] + 0 "\t" n["LDG128"] + 0 \
                "\t" n["LDG"] + 0 "\t" n["STG128"] + 0 "\t" n["STG"] + 0 "\t" n["LDL"] + n["STL"] + 0
        split("", n)
    }
    /Function :/ { put(); name = $3 }
    /^ *\/\*[0-9a-f]+\*\// {
        op = $2
        if (op ~ /^@/) op = $3
        split(op, part, ".")
        kind = part[1]
        if (kind ~ /^(LDG|STG|LDGSTS)$/ && op ~ /\.128/) kind = kind "128"
        n[kind]++
    }
    END { put() }' "$listing" | c++filt | sed -E 's/^void //; s/\([a-z_:]+\)([0-9])/\1/g; s/\(.*\)\t([0-9]+\t)/\t\1/'
