#!/usr/bin/env python3
"""Computes the metrics of a run again, from requests.jsonl alone, and compares them with result.json.

    tools/check-metrics.py RESULT.json REQUESTS.jsonl [RESULT.json REQUESTS.jsonl...]

Written from the definitions (bench/METRICS.md; vLLM's `bench serve`) with numpy, sharing nothing with the
program. Taken from result.json, because no request knows them: duration, tensor and data parallel sizes,
max_concurrency, the kind of workload, the service levels, totals of the engine. Exit code 0: all equal to
1e-9; 1: some differ (all are named); 2: usage or files.
"""
import json
import math
import sys

import numpy as np

RELATIVE = 1e-9
CLOSED = {"closed"}
OPEN = {"poisson", "gamma", "constant", "ramp", "trace"}
HAS_ARRIVALS = OPEN | {"waves"}
PERCENTILES = (50, 90, 95, 99)


class Request:
    """A completed request; times in ns since the earliest submission."""

    def __init__(self, row):
        self.prompt_len = row["prompt_len"]
        self.output_len = row["output_len"]
        self.intended = row["intended_ns"]
        self.submit = row["submit_ns"]
        self.scheduled = row["scheduled_ns"]
        gaps = [gap for gap, count in row["gaps"] for _ in range(count)]
        self.gaps = np.array(gaps, dtype=np.int64)
        self.tokens = row["first_token_ns"] + np.concatenate(([0], np.cumsum(self.gaps))).astype(np.int64)
        self.last = int(self.tokens[-1])
        if len(self.tokens) != self.output_len or self.last != row["last_token_ns"]:
            raise ValueError(f"request {row['index']}: its gaps do not lead to its last token")

    @property
    def ttft(self):
        return (self.tokens[0] - self.submit) / 1e6

    @property
    def e2el(self):
        return (self.last - self.submit) / 1e6

    @property
    def tpot(self):
        return (self.e2el - self.ttft) / (self.output_len - 1) if self.output_len > 1 else None


class Comparison:
    """Compares values with those at paths of result.json and remembers what differs."""

    def __init__(self, result):
        self.result = result
        self.n = 0
        self.different = []

    def value(self, path):
        item = self.result
        for key in path.split("/"):
            item = item[int(key)] if isinstance(item, list) else item[key]
        return item

    def equal(self, path, expected, scale=None):
        """`scale`: size of the numbers that cancelled on the way to this one."""
        self.n += 1
        try:
            value = self.value(path)
        except (KeyError, IndexError, TypeError):
            self.different.append(f"{path} is missing, expected {expected}")
            return
        if expected is None or value is None or isinstance(expected, (str, bool)):
            same = value == expected
        else:
            size = max(abs(float(expected)), scale or 0)
            same = not isinstance(value, bool) and abs(value - float(expected)) <= RELATIVE * size
        if not same:
            self.different.append(f"{path} is {value}, expected {expected}")


def samples(requests, has_arrivals):
    return {
        "ttft": [r.ttft for r in requests],
        "tpot": [r.tpot for r in requests if r.tpot is not None],
        "itl": np.concatenate([r.gaps for r in requests]) / 1e6 if requests else [],
        "e2el": [r.e2el for r in requests],
        "queue": [(r.scheduled - r.submit) / 1e6 for r in requests if r.scheduled is not None],
        "dispatch": [(r.submit - r.intended) / 1e6 for r in requests] if has_arrivals else [],
    }


def compare_vllm_latencies(compare, latencies):
    for name in ("ttft", "tpot", "itl", "e2el"):
        values = np.asarray(latencies[name], dtype=float)
        values = values if len(values) else np.zeros(1)
        compare.equal(f"mean_{name}_ms", values.mean())
        compare.equal(f"median_{name}_ms", np.median(values))
        compare.equal(f"std_{name}_ms", values.std(), scale=np.abs(values).max())
        for p in PERCENTILES:
            compare.equal(f"p{p}_{name}_ms", np.percentile(values, p))


def compare_own_latencies(compare, path, latencies):
    for name, given in latencies.items():
        values = np.asarray(given, dtype=float)
        at = f"{path}/{name}"
        compare.equal(f"{at}/n", len(values))
        if len(values) == 0:
            for key in ("mean", "std", "min", "max", *(f"p{p}" for p in PERCENTILES)):
                compare.equal(f"{at}/{key}", None)
            continue
        compare.equal(f"{at}/mean", values.mean())
        compare.equal(f"{at}/std", values.std(), scale=np.abs(values).max())
        compare.equal(f"{at}/min", values.min())
        compare.equal(f"{at}/max", values.max())
        for p in PERCENTILES:
            compare.equal(f"{at}/p{p}", np.percentile(values, p))


def compare_throughputs(compare, requests, duration, n_gpus):
    n_input, n_output = sum(r.prompt_len for r in requests), sum(r.output_len for r in requests)
    per_s = (lambda x: x / duration) if duration > 0 else (lambda x: 0)
    latency_s = sum(r.e2el for r in requests) / 1e3
    compare.equal("total_input_tokens", n_input)
    compare.equal("total_output_tokens", n_output)
    compare.equal("request_throughput", per_s(len(requests)))
    compare.equal("output_throughput", per_s(n_output))
    compare.equal("total_token_throughput", per_s(n_input + n_output))
    compare.equal("qdyno/throughput/output_tok_s", per_s(n_output))
    compare.equal("qdyno/throughput/tok_s_per_gpu", per_s(n_output) / n_gpus)
    speeds = [r.output_len / (r.e2el / 1e3) if r.e2el > 0 else 0 for r in requests]
    compare.equal("qdyno/throughput/tok_s_per_user", np.mean(speeds) if speeds else None)
    per_request = n_output / latency_s if latency_s > 0 else 0
    compare.equal("qdyno/per_request_tok_s", per_request if requests else None)
    compare.equal("qdyno/mean_concurrency", per_s(latency_s))


def compare_peaks(compare, requests):
    """vLLM's buckets of 1 s from the earliest submission of a completed request."""
    if not requests:
        compare.equal("max_output_tokens_per_s", 0)
        compare.equal("max_concurrent_requests", 0)
        return
    start = min(r.submit for r in requests)
    tokens = np.concatenate([r.tokens for r in requests]) - start
    compare.equal("max_output_tokens_per_s", np.bincount(tokens // 10**9).max())
    touching = np.zeros(max(r.last - start for r in requests) // 10**9 + 1, dtype=int)
    for r in requests:
        touching[(r.submit - start) // 10**9 : (r.last - start) // 10**9 + 1] += 1
    compare.equal("max_concurrent_requests", touching.max())


def compare_goodput(compare, requests, duration):
    levels = compare.value("qdyno/goodput")
    if levels is None:
        compare.equal("request_goodput", None)
        return

    def keeps(request):
        values = (("ttft_ms", request.ttft), ("tpot_ms", request.tpot or 0), ("e2el_ms", request.e2el))
        return all(levels[key] is None or value <= levels[key] for key, value in values)

    good = sum(keeps(r) for r in requests)
    compare.equal("qdyno/goodput/good", good)
    compare.equal("request_goodput", good / duration if duration > 0 else 0)


def crossings(requests, threshold):
    """First time that `threshold` requests are in flight, last time that they cease to be, most in flight."""
    events = sorted([(r.submit, 0) for r in requests] + [(r.last, 1) for r in requests])
    level = peak = 0
    up = down = None
    for time, is_end in events:
        before = level
        level += -1 if is_end else 1
        peak = max(peak, level)
        if before < threshold <= level and up is None:
            up = time
        if level < threshold <= before:
            down = time
    return up, down, peak


def steady_window(requests, kind, max_concurrency):
    """(start, end, threshold, peak) or None."""
    if kind in CLOSED:
        threshold = math.ceil(95 * max_concurrency / 100)
        start, end, peak = crossings(requests, threshold)
    elif kind in OPEN and requests:
        threshold = peak = None
        start, end = min(r.intended for r in requests), max(r.intended for r in requests)
    else:
        return None
    return (start, end, threshold, peak) if start is not None and end > start else None


def compare_steady_state(compare, requests, kind, max_concurrency, duration):
    window = steady_window(requests, kind, max_concurrency)
    if window is None:
        compare.equal("qdyno/steady_state", None)
        return
    start, end, threshold, peak = window
    seconds = (end - start) / 1e9
    n_tokens = sum(int(((r.tokens >= start) & (r.tokens <= end)).sum()) for r in requests)
    n_completed = sum(start <= r.last <= end for r in requests)
    at = "qdyno/steady_state"
    compare.equal(f"{at}/rule", "concurrency" if kind in CLOSED else "arrivals")
    compare.equal(f"{at}/start_ns", start)
    compare.equal(f"{at}/end_ns", end)
    compare.equal(f"{at}/duration_s", seconds)
    compare.equal(f"{at}/threshold", threshold)
    compare.equal(f"{at}/peak_in_flight", peak)
    compare.equal(f"{at}/short", bool(seconds < max(10, duration / 10)))
    compare.equal(f"{at}/requests_started", sum(start <= r.submit <= end for r in requests))
    compare.equal(f"{at}/requests_completed", n_completed)
    compare.equal(f"{at}/output_tokens", n_tokens)
    compare.equal(f"{at}/request_throughput", n_completed / seconds)
    compare.equal(f"{at}/output_tok_s", n_tokens / seconds)
    inside = [r for r in requests if r.submit >= start and r.last <= end]
    compare_own_latencies(compare, f"{at}/latency_ms", samples(inside, kind in HAS_ARRIVALS))


def compare_replicas(compare, rows):
    """What the engine counts must agree with what its requests say, where every request ran to its end."""
    replicas = compare.value("qdyno/replicas")
    if not all(row["completed"] for row in rows):
        return
    compare.equal("qdyno/preemptions", sum(row["preemptions"] for row in rows))
    compare.equal("qdyno/hit_tokens", sum(row["hit_tokens"] for row in rows))
    n_blocks = compare.value("qdyno/engine/n_kv_blocks")
    for i, replica in enumerate(replicas):
        compare.equal(f"qdyno/replicas/{i}/n_finished", sum(row["replica"] == i for row in rows))
        compare.equal(f"qdyno/replicas/{i}/peak_kv_share", replica["peak_kv_blocks"] / n_blocks)
    tokens = [r["n_prefill_tokens"] + r["n_decode_tokens"] for r in replicas]
    compare.equal("qdyno/imbalance", max(tokens) / np.mean(tokens) if sum(tokens) else 0)
    compare_coupling(compare, replicas)
    steps = sum(r["n_prefill_steps"] for r in replicas)
    prompts = sum(r["n_prefill_requests"] for r in replicas)
    compare.equal("qdyno/prompts_per_prefill_step", prompts / steps if steps else None)


def compare_coupling(compare, replicas):
    if compare.value("qdyno/engine/dp_coupling") == "none":
        compare.equal("qdyno/coupling", None)
        return
    duration = compare.value("duration")
    waits = [r["wait_ns"] / 1e9 for r in compare.value("qdyno/coupling/replicas")]
    per_s = (lambda x: x / duration) if duration > 0 else (lambda x: 0)
    compare.equal("qdyno/coupling/wait_s", sum(waits))
    compare.equal("qdyno/coupling/wait_share", per_s(sum(waits)) / len(replicas))
    for i, wait in enumerate(waits):
        compare.equal(f"qdyno/coupling/replicas/{i}/wait_share", per_s(wait))


def check(result, rows):
    compare = Comparison(result)
    requests = [Request(row) for row in rows if row["completed"]]
    kind = result["qdyno"]["workload"]["kind"]
    duration = result["duration"]
    compare.equal("num_prompts", len(rows))
    compare.equal("completed", len(requests))
    compare.equal("failed", len(rows) - len(requests))
    if requests and max(r.last for r in requests) > duration * 1e9 + 1:
        compare.different.append(f"duration is {duration} s, but a token came after it")
    latencies = samples(requests, kind in HAS_ARRIVALS)
    compare_vllm_latencies(compare, latencies)
    compare_own_latencies(compare, "qdyno/latency_ms", latencies)
    n_gpus = result["tensor_parallel_size"] * result["data_parallel_size"]
    compare_throughputs(compare, requests, duration, n_gpus)
    compare_peaks(compare, requests)
    compare_goodput(compare, requests, duration)
    compare_steady_state(compare, requests, kind, result["max_concurrency"], duration)
    compare_replicas(compare, rows)
    return compare


def check_files(result_path, requests_path):
    """Prints what differs; returns whether nothing does."""
    with open(result_path, encoding="utf-8") as file:
        result = json.load(file)
    with open(requests_path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    compare = check(result, rows)
    for line in compare.different:
        print(line)
    print(f"{result_path}: {compare.n} values, {len(compare.different)} differ")
    return not compare.different


def main():
    paths = sys.argv[1:]
    if not paths or len(paths) % 2 != 0:
        print(f"usage: {sys.argv[0]} RESULT.json REQUESTS.jsonl [...]", file=sys.stderr)
        return 2
    try:
        equal = [check_files(*pair) for pair in zip(paths[::2], paths[1::2])]
    except (OSError, ValueError) as error:
        print(f"check-metrics: {error}", file=sys.stderr)
        return 2
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
