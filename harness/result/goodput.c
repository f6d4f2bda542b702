#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/result.h"

static double *find_level(struct qd_slo *slo, const char *name, size_t len)
{
    const struct {
        const char *name;
        double *value;
    } levels[] = {{"ttft", &slo->ttft_ms}, {"tpot", &slo->tpot_ms}, {"e2el", &slo->e2el_ms}};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++)
        if (strlen(levels[i].name) == len && memcmp(levels[i].name, name, len) == 0) return levels[i].value;
    return NULL;
}

qd_status qd_slo_parse(const char *const *words, int n, struct qd_slo *out, char *err, size_t errlen)
{
    *out = (struct qd_slo){.is_given = n > 0, .ttft_ms = INFINITY, .tpot_ms = INFINITY, .e2el_ms = INFINITY};
    for (int i = 0; i < n; i++) {
        const char *colon = strchr(words[i], ':');
        double *level = colon != NULL ? find_level(out, words[i], (size_t)(colon - words[i])) : NULL;
        if (level == NULL)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "\"%s\" is no service level: ttft:MS, tpot:MS or e2el:MS", words[i]);
        if (!isinf(*level))
            return qd_fail(QD_ERR_INPUT, err, errlen, "\"%s\": the second level of its kind", words[i]);
        char *end;
        *level = strtod(colon + 1, &end);
        /* strtod also skips white space and reads hexadecimal, "inf" and "nan". */
        if (end == colon + 1 || *end != '\0' || strpbrk(colon, " \t\nxXnN") != NULL ||
            !(*level >= 0 && isfinite(*level)))
            return qd_fail(QD_ERR_INPUT, err, errlen, "\"%s\": no number of milliseconds", words[i]);
    }
    return QD_OK;
}

static bool is_good(const struct qd_slo *slo, const struct qd_request_record *r)
{
    double ttft_ms = (double)(r->token_ns[0] - r->submit_ns) / 1e6;
    double e2el_ms = (double)(qd_request_last_token_ns(r) - r->submit_ns) / 1e6;
    double decode_ms = (double)(qd_request_last_token_ns(r) - r->token_ns[0]) / 1e6;
    double tpot_ms = r->output_len > 1 ? decode_ms / (r->output_len - 1) : 0;
    return ttft_ms <= slo->ttft_ms && tpot_ms <= slo->tpot_ms && e2el_ms <= slo->e2el_ms;
}

uint64_t qd_slo_count_good(const struct qd_slo *slo, const struct qd_request_record *records, uint64_t n)
{
    uint64_t n_good = 0;
    for (uint64_t i = 0; i < n; i++) n_good += qd_request_completed(&records[i]) && is_good(slo, &records[i]);
    return n_good;
}
