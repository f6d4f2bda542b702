#include "harness/result/run_result.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/files.h"
#include "models/json.h"

/* Writes ,"gaps":[[gap_ns,count],...] in the order of the tokens; equal neighbours are one pair. */
static void print_gaps(FILE *out, const struct qd_request_record *r)
{
    fprintf(out, ",\"gaps\":[");
    for (int32_t i = 1; i < r->output_len;) {
        int64_t gap = r->token_ns[i] - r->token_ns[i - 1];
        int32_t end = i + 1;
        while (end < r->output_len && r->token_ns[end] - r->token_ns[end - 1] == gap) end++;
        fprintf(out, "%s[%" PRId64 ",%d]", i > 1 ? "," : "", gap, (int)(end - i));
        i = end;
    }
    fprintf(out, "]");
}

/* Times relative to `origin`, so that they stay exact as JSON numbers; null for what never happened. */
static void print_time(FILE *out, const char *key, bool happened, int64_t time_ns, int64_t origin)
{
    if (happened)
        fprintf(out, ",\"%s\":%" PRId64, key, time_ns - origin);
    else
        fprintf(out, ",\"%s\":null", key);
}

static bool print_text(FILE *out, const char *key, const char *text)
{
    if (text == NULL) {
        fprintf(out, ",\"%s\":null", key);
        return true;
    }
    char *utf8 = qd_text_make_utf8(text);
    char *quoted = utf8 != NULL ? qd_json_quote(utf8, strlen(utf8)) : NULL;
    if (quoted != NULL) fprintf(out, ",\"%s\":%s", key, quoted);
    bool ok = quoted != NULL;
    free(quoted);
    free(utf8);
    return ok;
}

static bool print_request(FILE *out, const struct qd_request_record *r, uint64_t index, int64_t origin)
{
    bool has_token = r->output_len > 0, has_submission = qd_request_submitted(r);
    fprintf(out,
            "{\"index\":%" PRIu64 ",\"replica\":%d,\"prompt_len\":%d,\"max_tokens\":%d,\"output_len\":%d",
            index, r->replica, r->prompt_len, r->max_tokens, r->output_len);
    fprintf(out, ",\"completed\":%s", qd_request_completed(r) ? "true" : "false");
    if (!print_text(out, "finish", r->finish) || !print_text(out, "error", r->error)) return false;
    fprintf(out, ",\"preemptions\":%d,\"hit_tokens\":%d", r->preemptions, r->hit_tokens);
    print_time(out, "intended_ns", has_submission, r->intended_ns, origin);
    print_time(out, "submit_ns", has_submission, r->submit_ns, origin);
    print_time(out, "scheduled_ns", r->scheduled_ns != 0, r->scheduled_ns, origin);
    print_time(out, "first_token_ns", has_token, has_token ? r->token_ns[0] : 0, origin);
    print_time(out, "last_token_ns", has_token, has_token ? qd_request_last_token_ns(r) : 0, origin);
    print_gaps(out, r);
    fprintf(out, "}\n");
    return true;
}

qd_status qd_requests_write(const struct qd_request_record *records, uint64_t n, const char *path, char *err,
                            size_t errlen)
{
    int64_t origin = INT64_MAX;
    for (uint64_t i = 0; i < n; i++)
        if (qd_request_submitted(&records[i]) && records[i].submit_ns < origin) origin = records[i].submit_ns;
    struct qd_atomic_file file;
    qd_status st = qd_atomic_file_open(&file, path, err, errlen);
    bool ok = true;
    for (uint64_t i = 0; st == QD_OK && ok && i < n; i++)
        ok = print_request(file.stream, &records[i], i, origin);
    if (st == QD_OK && !ok) {
        qd_atomic_file_discard(&file);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    }
    return st == QD_OK ? qd_atomic_file_commit(&file, err, errlen) : st;
}
