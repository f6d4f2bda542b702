#!/bin/sh
# tools/gpu-first-run.sh: all of it on emulated GPUs, and how it goes on after failures with a program that is played.
# shellcheck shell=sh
. tests/e2e/lib.sh

# A checkout with the script, and a program that notes its arguments and fails at the words in a file.
play() {
    rm -rf "$TMP/played" "$TMP/played out"
    mkdir -p "$TMP/played/build" "$TMP/played/tools" "$TMP/played/tests/data/goldens/models/golden"
    cp tools/gpu-first-run.sh "$TMP/played/tools/"
    cat >"$TMP/played/build/qdyno" <<'END'
#!/bin/sh
echo "$*" >>"${0%/*}/../calls"
while read -r word; do
    case "$*" in *"$word"*) echo "qdyno: no $word today" >&2; exit 3 ;; esac
done <"${0%/*}/../fails"
echo "output of $1"
while [ $# -gt 1 ]; do
    case $1 in --result-dir) folder=$2 ;; --result-filename) printf '"output_throughput": 1,\n' >"$folder/$2" ;; esac
    shift
done
END
    chmod +x "$TMP/played/build/qdyno"
    : >"$TMP/played/fails"
}

first_run() { "$TMP/played/tools/gpu-first-run.sh" --out "$TMP/played out" "$@"; }

calls() { grep -c -e "$1" "$TMP/played/calls"; }

a_failed_stage_stops_no_other_and_is_repeated() {
    play
    echo kernels >"$TMP/played/fails"
    exits 5 first_run
    out_has 'gpu-first-run: 12 stages, about '
    out_has 'kernels: failed: qdyno: no kernels today'
    out_has 'ranks-dp: passed'
    : >"$TMP/played/fails"
    : >"$TMP/played/calls"
    exits 0 first_run
    out_has 'doctor: has passed before'
    out_has 'kernels: passed'
    equal 2 "$(calls kernels)" # once for each model
    equal 0 "$(calls sweep)"
    exits 0 first_run --only sweep-8B-eager
    equal 1 "$(calls 'sweep .*--model 8B .*--enforce-eager')"
    out_lacks doctor
}

# Stopped in the middle of a stage: what ran there ends with it, and the next run begins there.
an_interrupted_run_goes_on_where_it_was() {
    play
    sed -i "s|^echo \"output|[ \"\$1\" != eval ] \|\| { echo \$\$ >'$TMP/pid'; exec sleep 60; }\n&|" "$TMP/played/build/qdyno"
    rm -f "$TMP/pid"
    "$TMP/played/tools/gpu-first-run.sh" --out "$TMP/played out" >"$OUT" 2>"$ERR" &
    pid=$! status=0 tries=0
    until [ -s "$TMP/pid" ] || [ $((tries += 1)) -gt 100 ]; do sleep 0.1; done
    kill -TERM $pid
    wait $pid || status=$?
    equal 130 "$status"
    tries=0
    while kill -0 "$(cat "$TMP/pid")" 2>/dev/null; do
        [ $((tries += 1)) -le 50 ] || fail "eval still runs"
        sleep 0.1
    done
    sed -i '/exec sleep/d' "$TMP/played/build/qdyno"
    : >"$TMP/played/calls"
    exits 0 first_run
    out_has 'kernels: has passed before'
    out_has 'eval: passed'
    equal 0 "$(calls kernels)"
}

its_exit_is_that_of_the_stages_it_ran() {
    play
    echo doctor >"$TMP/played/fails"
    exits 5 first_run --only doctor
    exits 0 first_run --only eval
    grep -q "^doctor.*failed: qdyno: no doctor today" "$TMP/played out/summary.txt"
    grep -q "^kernels.*not run" "$TMP/played out/summary.txt"
}

everything_is_in_the_bundle() {
    play
    exits 0 first_run
    tar -tzf "$TMP/played out.tar.gz" >"$TMP/names"
    "$TMP/played/tools/gpu-first-run.sh" --list | while read -r stage _; do
        grep -qx "played out/$stage/log.txt" "$TMP/names" || fail "no log of $stage"
    done
    grep -qx 'played out/summary.txt' "$TMP/names"
}

graphs_and_eager_of_both_models_are_swept() {
    play
    exits 0 first_run
    for model in 0.6B 8B; do
        equal 1 "$(grep 'sweep ' "$TMP/played/calls" | grep -e "--model $model " | grep -c -e --enforce-eager)"
        equal 1 "$(grep 'sweep ' "$TMP/played/calls" | grep -e "--model $model " | grep -vc -e --enforce-eager)"
    done
    equal 2 "$(calls '--tp 2 --ranks-per-gpu 2')"
    equal 2 "$(calls '--dp 2 --ranks-per-gpu 2')"
}

another_run_does_not_mix_with_it() {
    play
    exits 0 first_run --only doctor
    refuses 2 'holds a run of device cuda, models 0.6B,8B' first_run --models 4B
}

bad_arguments_are_refused() {
    refuses 2 'unknown argument --fast' tools/gpu-first-run.sh --fast
    refuses 2 '--device gpu is none of' tools/gpu-first-run.sh --device gpu
    refuses 2 '--only nothing is none of: doctor kernels' tools/gpu-first-run.sh --only nothing
    refuses 2 '--out needs a value' tools/gpu-first-run.sh --out
    play
    rm "$TMP/played/build/qdyno"
    refuses 3 'run make' first_run
}

no_stage_is_longer_than_eight_minutes() {
    seconds=$(sed -n 's/^STAGE_SECONDS=\([0-9]*\).*/\1/p' tools/gpu-first-run.sh)
    [ $((seconds + 20)) -lt 480 ]
    tools/gpu-first-run.sh --list >"$TMP/stages"
    awk -v limit="$seconds" '$2 >= limit { exit 1 }' "$TMP/stages" || fail "a stage is expected to take longer"
}

all_of_it_on_emulated_gpus() {
    case $BUILD in *address* | *thread*) skip "sanitizers make it slow, and other tests cover what it runs" ;; esac
    mkdir -p "$TMP/real/build"
    case $QDYNO in /*) program=$QDYNO ;; *) program=$PWD/$QDYNO ;; esac
    ln -s "$program" "$TMP/real/build/qdyno"
    for folder in models tests tools; do ln -s "$PWD/$folder" "$TMP/real/$folder"; done
    exits 0 "$TMP/real/tools/gpu-first-run.sh" --device emu --out "$TMP/emu out"
    "$TMP/real/tools/gpu-first-run.sh" --device emu --list | while read -r stage _; do
        out_has "$stage: passed"
    done
    summary=$TMP/emu\ out/summary.txt
    equal 28 "$(awk -F '\t' '$3 == "passed" && $5 > 0' "$TMP/emu out/kernels/kernels.tsv" | wc -l)"
    grep -q '^mha-oddsize-f32 on emu: hidden size 72' "$summary"
    equal 4 "$(grep -c '"passes":true' "$summary")"
    awk -F '\t' '/^decode, batch|^prefill, budget/ { n += $2 > 0 && $4 > 0 } END { exit n != 4 }' "$summary"
    equal 4 "$(grep -c '^| *1 | *1 | *\(16\|32\) |' "$summary")"
}

check a_failed_stage_stops_no_other_and_is_repeated
check an_interrupted_run_goes_on_where_it_was
check its_exit_is_that_of_the_stages_it_ran
check everything_is_in_the_bundle
check graphs_and_eager_of_both_models_are_swept
check another_run_does_not_mix_with_it
check bad_arguments_are_refused
check no_stage_is_longer_than_eight_minutes
check all_of_it_on_emulated_gpus
finish
