#!/bin/sh
# The tiny model's text on the GPUs of this machine is that of the CPU: recorded steps, op by op, batch-invariant, and
# with as many ranks as there are GPUs. Prints the lines that tools/run-tests.sh counts.
#   QDYNO=build/release/qdyno tests/gpu/text.sh
# shellcheck shell=sh
set -u

want=$(mktemp) got=$(mktemp) said=$(mktemp) failed=0
trap 'rm -f "$want" "$got" "$said"' EXIT

# A prompt whose answer has a margin: `cpu` says the same with 1, 2, 4 and 8 ranks.
text() {
    "$QDYNO" generate --model models/tiny --prompt "Once upon" --max-tokens 32 --memory-limit 1G "$@" 2>"$said"
}

# same NAME OPTION...: one line, the device's words when it is not the same.
same() {
    name=$1
    shift
    if text --device cuda "$@" >"$got" && cmp -s "$want" "$got"; then
        echo "[       OK ] $name"
    else
        echo "[  FAILED  ] $name"
        cat "$got" "$said"
        failed=1
    fi
}

text --device cpu >"$want" || { cat "$said"; exit 1; }
same text_of_recorded_steps
same text_op_by_op --enforce-eager
same text_batch_invariant --batch-invariant
n_gpus=$(find /dev -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
for tp in 2 4 8; do
    [ "$tp" -le "$n_gpus" ] && same "text_of_${tp}_gpus" --tp "$tp"
done
exit $failed
