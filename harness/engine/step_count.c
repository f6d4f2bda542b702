#include "harness/engine/step_count.h"

/* Tokens of one request: computed for the first time or again, prompt or output. */
static void count_entry(const struct qd_sched_entry *entry, int64_t now_ns, struct qd_step_row *row)
{
    struct qd_live_request *request = qd_live_request_of(entry->request);
    int32_t end = entry->begin + entry->n_tokens, known_before = request->n_computed_once;
    int32_t again =
        known_before <= entry->begin ? 0 : (end < known_before ? end : known_before) - entry->begin;
    int32_t first_output = known_before > request->sched.n_prompt ? known_before : request->sched.n_prompt;
    if (entry->begin > first_output) first_output = entry->begin;
    int32_t decode = end > first_output ? end - first_output : 0;
    row->n_recomputed_tokens += again;
    row->n_decode_tokens += decode;
    row->n_prefill_tokens += entry->n_tokens - decode;
    row->n_prefill_seqs += entry->n_tokens > decode;
    row->n_logit_rows += entry->samples;
    row->n_kv += end;
    if (entry->n_tokens > decode) row->n_prefill_kv += end;
    row->n_visible += (int64_t)entry->n_tokens * (entry->begin + end + 1) / 2;
    if (end > known_before) request->n_computed_once = end;
    if (request->scheduled_ns == 0) {
        request->scheduled_ns = now_ns;
        request->n_hit_tokens = entry->begin;
    }
}

void qd_step_count(const struct qd_schedule *schedule, int64_t now_ns, struct qd_step_row *row)
{
    for (int32_t i = 0; i < schedule->n_entries; i++) count_entry(&schedule->entries[i], now_ns, row);
    row->n_seqs = schedule->n_entries;
    row->n_admitted = schedule->n_admitted;
    row->n_preempted += schedule->n_preempted; /* to those of schedules that launched nothing */
    row->n_hit_tokens = schedule->n_hit_tokens + schedule->n_rehit_tokens;
}

void qd_step_count_add(const struct qd_step_row *row, const struct qd_schedule *schedule,
                       struct qd_replica_stats *stats)
{
    stats->n_steps++;
    stats->n_recomputed_tokens += (uint64_t)row->n_recomputed_tokens;
    stats->n_decode_tokens += (uint64_t)row->n_decode_tokens;
    stats->n_prefill_tokens += (uint64_t)row->n_prefill_tokens;
    stats->n_prefill_steps += row->n_prefill_seqs > 0;
    stats->n_prefill_requests += (uint64_t)row->n_prefill_seqs;
    stats->n_preemptions += (uint64_t)schedule->n_preempted;
    stats->n_query_tokens += (uint64_t)schedule->n_query_tokens;
    stats->n_hit_tokens += (uint64_t)schedule->n_hit_tokens;
    stats->n_rehit_tokens += (uint64_t)schedule->n_rehit_tokens;
    if (row->n_running > stats->peak_running) stats->peak_running = row->n_running;
    if (row->n_waiting > stats->peak_waiting) stats->peak_waiting = row->n_waiting;
    if (row->n_kv_blocks > stats->peak_kv_blocks) stats->peak_kv_blocks = row->n_kv_blocks;
}
