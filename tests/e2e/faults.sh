#!/bin/sh
# A kernel's fault ends its GPU's context for the whole process: the run ends with the reason and soon, and a
# sweep goes on with its other cells. On emulated GPUs, with a fault planted in the program (tests/e2e/faulty.c).
# shellcheck shell=sh
. tests/e2e/lib.sh

FAULTY=$BUILD/tests/e2e/faulty
SOON=20 # seconds; the runs take less than one

# plant WORD KERNEL LAUNCH: where the fault is. A step has one rmsnorm and one embed; opening runs two steps.
plant() {
    export QD_FAULT_WORD="$1" QD_FAULT_KERNEL="$2" QD_FAULT_LAUNCH="$3"
}

# A short run on emulated GPUs.
faulty_run() {
    timeout "$SOON" "$FAULTY" run --device emu --model "$TINY" --num-prompts 4 --input-len 16 --output-len 12 \
        --num-warmups 0 "$@"
}

nothing_planted_nothing_happens() {
    plant --no-such-word rmsnorm 1
    exits 0 faulty_run
}

a_fault_ends_the_run_with_its_reason() {
    plant emu rmsnorm 4
    for options in --enforce-eager ""; do
        # shellcheck disable=SC2086 # an option or none
        exits 5 faulty_run --json "$TMP/run.json" $options
        err_has "qdyno: run: replica 0 rank 0: step 1: "
        err_has "rmsnorm: a planted fault"
        err_has "the context of GPU 0 is lost"
        [ "$("$JSON" "$TMP/run.json" completed)" = 0 ]
        rm "$TMP/run.json"
    done
}

a_fault_in_a_recorded_step_too() {
    plant emu rmsnorm 8
    exits 5 faulty_run
    err_has "rmsnorm: a planted fault"
}

the_first_fault_is_told_of_replicas() {
    plant emu embed 7
    exits 5 faulty_run --dp 2
    err_has "embed: a planted fault"
    [ "$(grep -c 'qdyno: run:' "$ERR")" = 1 ] || fail "more than one reason"
}

a_fault_while_weights_are_drawn() {
    plant emu fill_uniform 3
    exits 3 timeout "$SOON" "$FAULTY" run --device emu --model micro --load-format dummy --num-prompts 1 \
        --input-len 8 --output-len 2
    err_has "fill_uniform: a planted fault"
}

a_sweep_goes_on() {
    plant 64 rmsnorm 4
    exits 5 timeout 60 "$FAULTY" sweep --device emu --model "$TINY" --budget 64,96 --num-runs 1 --num-prompts 2 \
        --input-len 16 --output-len 4 --results "$TMP/results" --experiment faults
    err_has "1 runs, 0 cells refused, 1 failed"
    failed=$(find "$TMP/results/faults" -name failed.json)
    [ "$(echo "$failed" | wc -l)" = 1 ]
    "$JSON" "$failed" reason | grep -q "replica 0 rank 0: step 1: .*rmsnorm: a planted fault" || fail "no reason"
    [ "$("$JSON" "$failed" exit_code)" = 5 ]
    [ "$("$JSON" "$failed" max_num_batched_tokens)" = 64 ]
    [ "$(find "$TMP/results/faults" -name 'run=0.json' | wc -l)" = 1 ]
}

check nothing_planted_nothing_happens
check a_fault_ends_the_run_with_its_reason
check a_fault_in_a_recorded_step_too
check the_first_fault_is_told_of_replicas
check a_fault_while_weights_are_drawn
check a_sweep_goes_on
finish
