#!/bin/sh
# Installs what qdyno needs from Debian's or Ubuntu's packages, if it is not there yet.
#   tools/setup.sh build   compiler and libraries of the program
#   tools/setup.sh test    the same and the test library
#   tools/setup.sh check   the same and clang with its sanitizer and fuzzer runtimes, numpy and gnuplot
# Silent and fast when all is there. Says what it installs. As root or with a sudo that asks no password it
# installs; otherwise it prints the command to run and exits 3.
set -u

level=${1:-build}
case $level in build|test|check) ;; *) echo "usage: tools/setup.sh build|test|check" >&2; exit 2 ;; esac

missing=
need() { missing="$missing $1"; }

compiler=$(command -v "${CC:-gcc}" || command -v cc) || compiler=
[ -n "$compiler" ] || need gcc
command -v "${CXX:-g++}" >/dev/null || need g++
command -v make >/dev/null || need make

has_header() {
    [ -n "$compiler" ] && printf '%s\n' "$1" | "$compiler" -E -x c - >/dev/null 2>&1
}
has_header '#include <stdio.h>' || need libc6-dev
has_header '#include <cjson/cJSON.h>' || need libcjson-dev
has_header '#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>' || need libpcre2-dev
has_header '#include <utf8proc.h>' || need libutf8proc-dev

if [ "$level" != build ]; then
    has_header '#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>' || need libcmocka-dev
fi

can_fuzz() {
    probe=$(mktemp -d) || return 1
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n); int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; (void)n; return 0; }' >"$probe/t.c"
    clang -fsanitize=fuzzer,address,undefined -o "$probe/t" "$probe/t.c" >/dev/null 2>&1
    result=$?
    rm -rf "$probe"
    return $result
}
if [ "$level" = check ] && ! can_fuzz; then
    need clang
    # Debian 12 and Ubuntu 24.04 keep the runtimes in a package named by clang's version; Ubuntu 22.04 ships
    # them inside libclang-common.
    for version in 14 15 16 17 18 19; do
        if [ "$(apt-cache depends clang 2>/dev/null | grep -c "clang-$version\$")" != 0 ]; then
            apt-cache show "libclang-rt-$version-dev" >/dev/null 2>&1 && need "libclang-rt-$version-dev"
        fi
    done
fi

if [ "$level" = check ]; then
    python3 -c 'import numpy' 2>/dev/null || /usr/bin/python3 -c 'import numpy' 2>/dev/null || need python3-numpy
    command -v gnuplot >/dev/null || need gnuplot-nox
fi

[ -z "$missing" ] && exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null; then
    echo "setup: missing:$missing (Debian package names); install them with this system's package manager" >&2
    exit 3
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "setup: some packages are missing. Please run:" >&2
    echo "    sudo apt-get update && sudo $install" >&2
    exit 3
fi
echo "setup: installing$missing" >&2
log=$(mktemp)
# shellcheck disable=SC2086 # as_root and missing are word lists
if ! { $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root $install; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: the installation failed; the command was: $install" >&2
    exit 3
fi
rm -f "$log"
