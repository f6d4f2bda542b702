#!/bin/sh
# qdyno kernels: ops of a model alone, on the CPU with times and on emulated GPUs with counters.
# shellcheck shell=sh
. tests/e2e/lib.sh

SMALL="--model micro --repeat 3 --threads 1 --cache warm"

# column NAME: that column of the CSV on standard output, its header left out. No field of these rows holds a comma
# but the shape of attention and of heads, which is quoted.
column() {
    sed 's/"[^"]*"/quoted/g' "$OUT" | awk -F, -v name="$1" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; if (!at) exit 1; next } { print $at }'
}

# Every op of a model, at two sizes: right, and timed against this machine.
the_cpu_is_verified_and_timed() {
    # shellcheck disable=SC2086 # options are words
    exits 0 "$QDYNO" kernels $SMALL --tokens 1,5 --context 20 --format csv
    equal 28 "$(column op | wc -l)"
    equal passed "$(column status | sort -u)"
    for name in median_us p10_us p90_us min_us max_us gbps memory_pct floor_us floor_pct; do
        column "$name" | awk '!($1 > 0) { exit 1 }' || fail "$name is not above 0"
    done
    equal this "$(column machine | sort -u)"
    equal warm "$(column cache | sort -u)"
    equal "" "$(column launches | tr -d '\n')"
}

# On emulated GPUs: counters, no times; ranks meet where the op is collective.
emulated_gpus_are_verified_and_counted() {
    exits 0 "$QDYNO" kernels --device emu --model micro --tp 1,2 --tokens 3 --context 20 --format csv
    equal 37 "$(column op | wc -l)"
    equal passed "$(column status | sort -u)"
    equal "" "$(column median_us | tr -d '\n')"
    equal H100-SXM "$(column machine | sort -u)"
    [ "$(column launches | awk '$1 > 0' | wc -l)" = 36 ] # all but the own all_gather, which only copies
    [ "$(column ranks | sort -u | tr '\n' ' ')" = "1 2 " ]
    # Ops of two ranks go every way, of which the device would take one; nothing is claimed of their speed.
    for way in 2,one_shot 2,two_shot 1,own 3,nccl; do
        equal "${way%,*}" "$(column way | grep -cx "${way#*,}")"
    done
    equal 3 "$(column chosen | grep -c 1)"
    equal "" "$(column busbw_gbps | tr -d '\n')"
}

operands_rotate_unless_told_otherwise() {
    exits 0 "$QDYNO" kernels --model micro --repeat 1 --op o --tokens 1 --format csv
    equal cold "$(column cache)"
}

json_is_json() {
    # shellcheck disable=SC2086
    exits 0 "$QDYNO" kernels $SMALL --op o,rmsnorm --tokens 1-4*2 --format json --output "$TMP/kernels.json"
    [ ! -s "$OUT" ]
    equal 6 "$("$JSON" "$TMP/kernels.json" rows)"
    equal rmsnorm "$("$JSON" "$TMP/kernels.json" rows/0/op)"
    equal gemm_nt "$("$JSON" "$TMP/kernels.json" rows/3/member)"
    equal "M 1 N 256 K 1024" "$("$JSON" "$TMP/kernels.json" rows/3/shape)"
    equal 526848 "$("$JSON" "$TMP/kernels.json" rows/3/bytes)" # 2 * 256 * 1024 + 2 * 1024 + 2 * 256
    equal cpu "$("$JSON" "$TMP/kernels.json" device)"
    equal 2 "$("$JSON" "$TMP/kernels.json" schema)"
    equal 0 "$("$JSON" "$TMP/kernels.json" switches)"
    "$JSON" "$TMP/kernels.json" rows/5/median_us >/dev/null
    "$JSON" "$TMP/kernels.json" rows/5/p90_us >/dev/null
}

a_table_is_for_people() {
    # shellcheck disable=SC2086
    exits 0 "$QDYNO" kernels $SMALL --op gemm_nt --tokens 1 --machine L40S
    out_has "micro on cpu, "
    out_has "floors of L40S"
    out_has "| median_us | p10_us | p90_us |"
    equal 5 "$(grep -c '| passed |' "$OUT")"
}

# What a device or the model does not take is a row with the reason, not a failure.
refused_shapes_are_rows() {
    exits 0 "$QDYNO" kernels --device emu --model "$GOLDENS/mha-oddsize-f32" --op rmsnorm --tokens 1 --format csv
    equal refused "$(column status)"
    out_has "hidden size 72: it must be a multiple of 64"
    exits 0 "$QDYNO" kernels --model micro --op attention_decode --tokens 1 --context 1000000 --format csv
    out_has "1000001 tokens in a sequence: the model's context is"
    exits 0 "$QDYNO" kernels --model micro --op lm_head --tokens 2000 --format csv
    out_has "logits are wanted of the last token"
}

bad_options_say_why() {
    refuses 2 '--op: "softmax" is none of all' "$QDYNO" kernels --op rmsnorm,softmax
    refuses 2 '--op: an empty text' "$QDYNO" kernels --op ""
    refuses 2 '--tokens: 0 is no whole number from 1' "$QDYNO" kernels --tokens 0
    refuses 2 '--tokens: "4-1" is no range' "$QDYNO" kernels --tokens 4-1
    refuses 2 '--context: x is no whole number' "$QDYNO" kernels --context x
    refuses 2 '--tensor-parallel-size: 3 is none of 1, 2, 4, 8' "$QDYNO" kernels --tp 3
    refuses 2 '9B is no folder, and no preset 9B' "$QDYNO" kernels --model 9B
    refuses 2 'no machine H100; there are this, H100-SXM' "$QDYNO" kernels --machine H100
    refuses 2 '--machine this' "$QDYNO" kernels --device emu --machine this
    refuses 2 '--device null executes nothing' "$QDYNO" kernels --device null
    refuses 2 '--format: "xml" is none of table|csv|json' "$QDYNO" kernels --format xml
    refuses 2 'unknown option --dp' "$QDYNO" kernels --dp 2
    refuses 2 'these lists make 0 cases' "$QDYNO" kernels --op all_reduce
    refuses 3 "$TMP/none/kernels.csv" "$QDYNO" kernels --output "$TMP/none/kernels.csv"
}

check the_cpu_is_verified_and_timed
check emulated_gpus_are_verified_and_counted
check operands_rotate_unless_told_otherwise
check json_is_json
check a_table_is_for_people
check refused_shapes_are_rows
check bad_options_say_why
finish
