#!/bin/sh
# shellcheck disable=SC2086 # ROOMS is a list
# What the documents say is true: files exist, commands run, options are options, every folder explains itself.
. tests/e2e/lib.sh

ROOMS='kernels models harness tests tools bench'
DOCS="README.md bench/METRICS.md $(find $ROOMS -name README.md)"

folders_with_sources_have_a_readme() {
    find $ROOMS -name '*.[ch]' -o -name '*.sh' | sed 's|/[^/]*$||' | sort -u | while read -r folder; do
        # Inside tests/ one document speaks for all; data folders have their own.
        case $folder in tests/*) folder=tests ;; esac
        # A folder inside a room may be a part of what the room's document describes.
        case $folder in */*/*) [ -f "${folder%/*}/README.md" ] && continue ;; esac
        [ -f "$folder/README.md" ] || fail "$folder has no README.md"
    done
}

# Words in backquotes that look like files, and the targets of links. A name may be written from the root or from the
# document's folder, with [ch] or * in it, and OP for the name of an op.
paths_exist() {
    missing=0
    for doc in $DOCS; do
        folder=$(dirname "$doc")
        {
            grep -oE '\]\([^)#:]+\)' "$doc" | sed 's/^](//; s/)$//'
            sed '/^ *```/,/^ *```/d' "$doc" | grep -oE '`[A-Za-z0-9_./*-]+(\[ch\])?`' | tr -d '`' |
                grep -E '\.(c|h|sh|\[ch\])$|^(kernels|models|harness|tests|tools|bench)/' | sed 's/OP\.c$/*.c/'
        } >"$TMP/paths" || true
        while read -r path; do
            exists "$path" "$folder" && continue
            echo "$doc names $path, which is not there"
            missing=$((missing + 1))
        done <"$TMP/paths"
    done
    equal 0 "$missing"
}

# exists PATTERN FOLDER: a file of that name from the root, from the folder or, for a bare name, anywhere below it.
exists() {
    for try in "$1" "$2/$1"; do
        # shellcheck disable=SC2086 # a pattern
        set -- "$1" "$2" $try
        [ -e "$3" ] && return 0
    done
    case $1 in
    */*) return 1 ;;
    *) [ -n "$(find "$2" -path ./build -prune -o -name "$1" -print | head -n 1)" ] ;;
    esac
}

# commands_of_blocks LANGUAGE: the lines of README.md's blocks that start the program, continued ones as one.
commands_of_blocks() {
    awk -v start="^\`\`\`($1)\$" '$0 ~ start { inside = 1; next } /^```/ { inside = 0 } inside' README.md |
        sed -e ':a' -e '/\\$/N; s/\\\n//; ta' -e 's/^\$ //' | grep -E '(^|\| )build/qdyno '
}

# The lines of README.md's sh blocks that start the program, as they stand there, in a copy of what they need.
commands_of_the_readme_run() {
    case $BUILD in *address* | *thread*) skip "sanitizers make them slow, and other tests cover what they run" ;; esac
    root=$PWD
    case $QDYNO in /*) program=$QDYNO ;; *) program=$root/$QDYNO ;; esac
    mkdir -p "$TMP/checkout/build"
    ln -s "$program" "$TMP/checkout/build/qdyno"
    for folder in models bench tests; do ln -s "$root/$folder" "$TMP/checkout/$folder"; done
    commands_of_blocks 'sh|console' >"$TMP/commands"
    [ "$(wc -l <"$TMP/commands")" -ge 5 ] || fail "README.md shows too few commands"
    # Every command of the program, and every kind of workload that a command line can ask for.
    for command in $("$QDYNO" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
        grep -q "build/qdyno $command " "$TMP/commands" || fail "README.md does not show $command"
    done
    for words in --max-concurrency --request-rate --burstiness --wave-size '--dataset-name trace' '--dataset-name prompts' \
        '--dataset-name custom' --print-vllm '--stop ' --goodput --ledger '--trace ' --record --replay; do
        grep -qF -e "$words" "$TMP/commands" || fail "README.md shows no $words"
    done
    while read -r line; do
        (cd "$TMP/checkout" && exits 0 sh -c "$line" </dev/null)
        written=$(echo "$line" | sed -nE 's/.* --output ([^ ]+).*/\1/p')
        [ -s "${written:+$TMP/checkout/}${written:-$OUT}" ] || fail "nothing printed by: $line"
    done <"$TMP/commands"
    "$JSON" "$TMP/checkout/trace.json" traceEvents >/dev/null
    [ -s "$TMP/checkout/results/vllm/vllm-prompts.jsonl" ] || fail "no prompts for vLLM"
}

# The lines of README.md's bash blocks that start the program are for a GPU. Here a sweep's plan is that of a device that
# needs none, and ops run on emulated GPUs, at a small model's shapes and for few tokens.
commands_for_a_gpu_are_understood() {
    commands_of_blocks bash | sed -nE 's#^build/qdyno (sweep|kernels) --device cuda #\1 #p' >"$TMP/gpu-commands"
    [ "$(wc -l <"$TMP/gpu-commands")" -ge 5 ] || fail "README.md shows too few commands for a GPU"
    while read -r command arguments; do
        # shellcheck disable=SC2086 # words of a command
        case $command in
        sweep) exits 0 "$QDYNO" sweep --device null $arguments --dry-run </dev/null ;;
        kernels)
            small=$(echo "$arguments" | sed -e 's/--model 8B/--model micro/' -e 's/--tokens [^ ]*/--tokens 1,2/')
            exits 0 "$QDYNO" kernels --device emu $small </dev/null
            ;;
        esac
        [ -s "$OUT" ] || fail "nothing printed by: $command $arguments"
        case $arguments in *published*) equal 40 "$(grep -c '^qdyno run ' "$OUT")" ;; esac
    done <"$TMP/gpu-commands"
}

# Every --option that a document names is one of some command (vLLM's own aside).
options_exist() {
    for command in run sweep report generate eval tokenize kernels doctor; do "$QDYNO" "$command" --help; done |
        grep -oE -e '--[a-z][a-z-]+' | sort -u >"$TMP/options"
    { echo --help; echo --version; } >>"$TMP/options"
    grep -vih vllm README.md harness/cli/README.md bench/METRICS.md tests/README.md | grep -ohE '`[^`]*`' |
        grep -oE -e '(^|[^a-z-])--[a-z][a-z-]+' | grep -oE -e '--.*' | sort -u | while read -r option; do
        grep -qxe "$option" "$TMP/options" || fail "no command has $option"
    done
}

commands_are_documented() {
    "$QDYNO" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | while read -r command; do
        grep -q "^| .$command. |" README.md || fail "README.md has no row for $command"
    done
}

make_targets_exist() {
    grep -ohE '(`|^)make [a-z-]+' README.md bench/README.md tests/README.md | grep -oE '[a-z-]+$' | sort -u |
        while read -r target; do
            grep -qE "^$target:" Makefile kernels/cuda/build.mk || fail "no target $target"
        done
}

exit_codes_of_the_help_are_the_readmes() {
    "$QDYNO" --help | grep -oE '[0-9]+ [a-z]+' | while read -r code word; do
        tr '\n' ' ' <README.md | grep -qE "$code $word" || fail "README.md does not say \"$code $word\""
    done
}

check folders_with_sources_have_a_readme
check paths_exist
check commands_of_the_readme_run
check commands_for_a_gpu_are_understood
check options_exist
check commands_are_documented
check make_targets_exist
check exit_codes_of_the_help_are_the_readmes
finish
