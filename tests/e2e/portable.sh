#!/bin/sh
# What `make portable` packs: what its ELF files ask of a machine, and that it runs elsewhere with nothing around it.
#   PORTABLE=ARCHIVE   the archive to judge (`make check`: one with the device cuda); else one is packed here without it
# shellcheck shell=sh
. tests/e2e/lib.sh

MAX_BYTES=$((48 << 20))
ELSEWHERE="$TMP/another place"

pack() {
    [ -n "$(command -v objdump)" ] || skip "no objdump"
    [ -n "$(command -v dpkg)" ] || skip "no dpkg, which knows the libraries' licences"
    XZ_LEVEL=-0 tools/portable.sh "$@"
}

case $BUILD in *address* | *thread*) sanitized=yes ;; *) sanitized= ;; esac
if [ -n "${PORTABLE:-}" ]; then
    archive=$PORTABLE
elif [ -z "$sanitized" ]; then
    (pack "$QDYNO" "$TMP/packed") >"$TMP/pack.log" 2>&1
    archive=$(find "$TMP/packed" -name '*.tar.xz' 2>/dev/null)
else
    archive=
fi
mkdir "$ELSEWHERE"
[ -z "$archive" ] || tar -C "$ELSEWHERE" -xf "$archive"
root=$(find "$ELSEWHERE" -mindepth 1 -maxdepth 1) # before tests write there
# Every file that begins as an ELF file does, whatever its name.
[ -z "$root" ] || find "$root" -type f | while read -r file; do
    [ "$(head -c 4 "$file" | tr -d '\177')" != ELF ] || echo "$file"
done >"$TMP/elf"

need_archive() {
    [ -z "$sanitized" ] || [ -n "${PORTABLE:-}" ] || skip "a sanitizer's libraries do not travel"
    grep '^skip: ' "$TMP/pack.log" 2>/dev/null && exit 77
    [ -n "$root" ] || fail "no archive: $(cat "$TMP/pack.log")"
}

it_unpacks_to_less_than_48_mib() {
    need_archive
    size=$(find "$root" -type f -exec stat -c %s {} + | awk '{ sum += $1 } END { print sum }')
    [ "$size" -lt "$MAX_BYTES" ] || fail "$size bytes"
}

# A symbol version in no other family than the C library's, and none newer than 2.34.
elf_files_need_only_an_old_c_library() {
    need_archive
    [ "$(wc -l <"$TMP/elf")" -ge 4 ] || fail "only these ELF files: $(cat "$TMP/elf")"
    while read -r file; do
        objdump -T "$file" | awk '$0 ~ /\*UND\*/' | grep -oE '\(?[A-Z]+[A-Z_]*_[0-9][0-9.]*\)?' | tr -d '()' | sort -Vu >"$TMP/versions"
        grep -q '^GLIBC_' "$TMP/versions" || fail "$file: no versioned symbol was read"
        others=$(grep -v '^GLIBC_' "$TMP/versions" || true)
        [ -z "$others" ] || fail "$file needs $others"
        newest=$(sed 's/^GLIBC_//' "$TMP/versions" | sort -V | tail -n 1)
        equal 2.34 "$(printf '2.34\n%s\n' "$newest" | sort -V | tail -n 1)"
    done <"$TMP/elf"
}

elf_files_name_only_what_is_there() {
    need_archive
    while read -r file; do
        for needed in $(objdump -p "$file" | awk '$1 == "NEEDED" { print $2 }'); do
            case $needed in
            libc.so.6 | libm.so.6 | libdl.so.2 | librt.so.1 | libpthread.so.0 | ld-linux-x86-64.so.2) ;;
            *) [ -e "$root/build/lib/$needed" ] || fail "$file needs $needed" ;;
            esac
        done
    done <"$TMP/elf"
}

# The loader's own word on where the libraries come from.
libraries_come_from_the_archive() {
    need_archive
    (cd / && exits 0 env -i LD_TRACE_LOADED_OBJECTS=1 "$root/build/qdyno")
    for library in "$root"/build/lib/*; do
        grep -qF "$(basename "$library") => $root/build/" "$OUT" || fail "not from the archive: $(basename "$library")"
    done
}

it_generates_text_in_an_empty_environment() {
    need_archive
    "$QDYNO" generate --model "$TINY" --prompt "Once upon" --max-tokens 32 >"$TMP/want" 2>"$ERR"
    (cd / && exits 0 env -i "$root/build/qdyno" generate --model "$root/models/tiny" --prompt "Once upon" --max-tokens 32)
    same "$TMP/want" "$OUT"
}

commands_of_the_readme_find_their_files() {
    need_archive
    (cd "$root" && exits 0 env -i build/qdyno report bench/baselines/published-qwen3-8b/benchmark_results_summary.csv)
    (cd "$root" && exits 0 env -i build/qdyno run --model micro --load-format dummy --random-input-len 16 \
        --random-output-len 4 --num-prompts 2)
}

the_first_run_works_from_it() {
    need_archive
    (cd / && exits 0 env -i PATH="$PATH" "$root/tools/gpu-first-run.sh" --device cpu --only eval --out "$ELSEWHERE/first run")
    equal 6 "$(grep -c '"passes":true' "$ELSEWHERE/first run/summary.txt")"
    grep -q '^C library: glibc 2' "$ELSEWHERE/first run/summary.txt"
}

# The text of each licence, and the origins of data.
licences_are_inside() {
    need_archive
    for library in "$root"/build/lib/*; do
        stem=$(basename "$library" | sed 's/\.so.*//')
        grep -qi 'copyright' "$root/licenses/$stem"* || fail "no licence of $stem"
    done
    grep -q 'MIT License' "$root/LICENSE"
    [ ! -e "$root/build/libqdyno_cuda.so" ] || grep -q 'NVIDIA' "$root/licenses/cuda-runtime.txt"
    for data in models/tiny tests/data/goldens bench/baselines; do [ -s "$root/$data/README.md" ]; done
}

its_contents_say_whether_it_has_the_device_cuda() {
    need_archive
    if [ -e "$root/build/libqdyno_cuda.so" ]; then
        grep -qE '^device cuda: built with CUDA [0-9.]+ for sm_80, ' "$root/build/CONTENTS.txt"
    else
        [ -z "${PORTABLE:-}" ] || [ -z "$(command -v nvcc)" ] || fail "nvcc is here, and the archive has no device cuda"
        grep -q '^device cuda: none: this archive was built without nvcc' "$root/build/CONTENTS.txt"
        (cd / && refuses 3 'the device cuda is not built' env -i "$root/build/qdyno" generate --device cuda \
            --model "$root/models/tiny" --prompt a)
    fi
}

# A symbol of glibc 2.36 in the program.
a_program_for_newer_machines_is_not_packed() {
    echo '#include <stdlib.h>
#include <stdio.h>
int main(void) { printf("qdyno 0, %u", arc4random()); return 0; }' >"$TMP/newer.c"
    ${CC:-gcc} -o "$TMP/newer" "$TMP/newer.c" 2>"$TMP/log.cc" || skip "this C library is old itself"
    exits 3 pack "$TMP/newer" "$TMP/not"
    err_has 'needs glibc 2.3'
    [ ! -e "$TMP/not" ]
}

check it_unpacks_to_less_than_48_mib
check elf_files_need_only_an_old_c_library
check elf_files_name_only_what_is_there
check libraries_come_from_the_archive
check it_generates_text_in_an_empty_environment
check commands_of_the_readme_find_their_files
check the_first_run_works_from_it
check licences_are_inside
check its_contents_say_whether_it_has_the_device_cuda
check a_program_for_newer_machines_is_not_packed
finish
