#!/bin/sh
# The main job on the model that ships with the source: sweeps TP x DP x token budget over its prompts, writes the
# report beside the raw results and prints it.
#   tools/first-run.sh [--full]     --full: all prompts instead of the first 16
set -eu

prompts="--num-prompts 16"
[ "${1:-}" = --full ] && prompts=
experiment=first-run-$(date +%Y%m%d_%H%M%S)
folder=results/$experiment

status=0
# shellcheck disable=SC2086 # prompts is an option and its value, or nothing
build/qdyno sweep --model models/tiny --tp 1,2 --dp 1,2 --budget 64,256,2048 \
    --dataset-name custom --dataset-path models/tiny/prompts.jsonl $prompts --ignore-eos --probe --ledger \
    --num-runs 3 --results results --experiment "$experiment" >/dev/null || status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 5 ] || exit "$status"

build/qdyno report "$folder" >"$folder/report.md.new"
mv "$folder/report.md.new" "$folder/report.md"
cat "$folder/report.md"
echo
echo "report: $folder/report.md    raw results: $folder/*/run=*.json, $folder/summary.csv"
exit "$status"
