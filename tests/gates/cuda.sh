#!/bin/sh
# What can be known of the CUDA kernels without a GPU: they compile alone and without a warning, take what the
# committed table says of an SM, spill nothing, and their machine code has the instructions they are written for.
# Skipped with the reason where nvcc (or, for the machine code, cuobjdump) cannot be had. `make gates` calls this.
#   BUILD   build folder      NVCC   the compiler      UPDATE=1   writes its part of the table anew, compares nothing
. tests/e2e/lib.sh

WORK=$BUILD/gates
TABLE=kernels/cuda/resources.tsv
NOW=$WORK/resources.tsv
SASS=$WORK/sass.tsv
HEAD='nvcc	kernel	architecture	registers	static shared bytes	stack bytes	spilled bytes'
TAB='	'

mkdir -p "$WORK"
resources=0
tools/cuda-resources.sh "$WORK" >"$NOW" 2>"$WORK/resources.log" || resources=$?
sass=0
[ "$resources" -ne 0 ] || tools/cuda-sass.sh "$WORK" "$WORK"/*.80.cubin >"$SASS" 2>"$WORK/sass.log" || sass=$?

need_resources() {
    [ "$resources" -ne 3 ] || skip "$(cat "$WORK/resources.log")"
    [ "$resources" -eq 0 ] || fail "$(cat "$WORK/resources.log")"
    [ -s "$NOW" ] || fail "no kernel was found"
}

need_sass() {
    need_resources
    [ "$sass" -ne 3 ] || skip "$(cat "$WORK/sass.log")"
    [ "$sass" -eq 0 ] || fail "$(cat "$WORK/sass.log")"
}

# none TEXT AWK_CONDITION FILE: no line of FILE meets the condition.
none() {
    found=$(awk -F '\t' "$2" "$3")
    [ -z "$found" ] || fail "$1: $found"
}

kernels_compile_alone_without_a_warning() {
    need_resources
}

nothing_spills() {
    need_resources
    none "stack or spills" '$5 > 0 || $6 > 0' "$NOW"
}

# Another release of nvcc allocates otherwise: the table holds for those it has lines of.
kernels_take_what_the_table_says() {
    need_resources
    release=$("$NVCC" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    sed "s/^/$release$TAB/" "$NOW" >"$WORK/lines"
    if [ -n "${UPDATE:-}" ]; then
        awk -F '\t' -v release="$release" 'NR > 1 && $1 != release' "$TABLE" | LC_ALL=C sort - "$WORK/lines" >"$WORK/others"
        { echo "$HEAD"; cat "$WORK/others"; } >"$TABLE"
    fi
    awk -F '\t' -v release="$release" '$1 == release' "$TABLE" >"$WORK/expected"
    [ -s "$WORK/expected" ] || skip "the table has no line of nvcc $release"
    diff "$WORK/expected" "$WORK/lines" || fail "the kernels differ from $TABLE (make gates UPDATE=1 writes it anew)"
}

# Their dynamic shared memory comes so near to the 99 KiB of sm_86 and sm_89 that nothing may lie beside it.
large_tiles_are_all_the_shared_memory() {
    need_resources
    for stem in gemm_tile attention_prefill attention_decode; do
        grep -q "^$stem::" "$NOW" || fail "no kernel of $stem"
    done
    grep -q '^gemm_skinny::.*ring' "$NOW" || fail "no ring kernel"
    none "static shared memory" '/^(gemm_tile|attention_prefill|attention_decode|gemm_skinny::.*ring)/ && $4 > 0' "$NOW"
}

local_memory_is_not_used() {
    need_sass
    none "local loads or stores" '$10 > 0' "$SASS"
}

matrix_kernels_use_tensor_cores() {
    need_sass
    for stem in gemm_tile gemm_skinny attention_prefill attention_decode; do
        grep -q "^$stem::" "$SASS" || fail "no kernel of $stem"
        none "no tensor-core instruction" "/^$stem::/ && \$2 == 0" "$SASS"
    done
}

weights_are_read_16_bytes_at_a_time() {
    need_sass
    none "narrow background copies" '$5 > 0' "$SASS"
    none "no 16-byte background copy" '/^(gemm_tile|attention_prefill|attention_decode)::/ && $4 == 0' "$SASS"
    none "no 16-byte background copy" '/^gemm_skinny::.*ring/ && $4 == 0' "$SASS"
    none "narrow loads, or none" '/^gemm_skinny::.*direct/ && ($6 == 0 || $7 > 0)' "$SASS"
}

# The read-only path may serve what another kernel or another GPU has overwritten since.
only_weights_are_read_past_coherence() {
    need_resources
    readers=$(cd "$WORK" && grep -l 'ld\.global\.nc' ./*.ptx | tr '\n' ' ')
    [ "$readers" = "./gemm_skinny.ptx " ] || fail "ld.global.nc in ${readers:-no file}, not in gemm_skinny alone"
}

check kernels_compile_alone_without_a_warning
check nothing_spills
check kernels_take_what_the_table_says
check large_tiles_are_all_the_shared_memory
check local_memory_is_not_used
check matrix_kernels_use_tensor_cores
check weights_are_read_16_bytes_at_a_time
check only_weights_are_read_past_coherence
finish
