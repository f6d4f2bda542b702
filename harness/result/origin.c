#include "harness/result/origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether `text` is one of the pieces of "a; b; c". */
static bool has_piece(const char *known, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = known; (p = strstr(p, text)) != NULL; p++) {
        bool begins = p == known || (p - known >= 2 && memcmp(p - 2, "; ", 2) == 0);
        if (begins && (p[len] == '\0' || strncmp(p + len, "; ", 2) == 0)) return true;
    }
    return false;
}

/* Adds `text` unless it is there: runs that differ are all named, as far as there is room. */
static void note(char *known, size_t room, const char *text)
{
    static const char others[] = "; and others";
    if (text[0] == '\0' || has_piece(known, text)) return;
    size_t used = strlen(known);
    bool fits = used + sizeof "; " - 1 + strlen(text) + sizeof others <= room;
    if (fits)
        snprintf(known + used, room - used, "%s%s", used > 0 ? "; " : "", text);
    else if (used == 0)
        snprintf(known, room, "too long to show");
    else if (!has_piece(known, "and others"))
        snprintf(known + used, room - used, "%s", others);
}

static void note_number(struct qd_extent *extent, double value)
{
    if (extent->n == 0 || value < extent->min) extent->min = value;
    if (extent->n == 0 || value > extent->max) extent->max = value;
    extent->n++;
}

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static const char *text_of(const cJSON *object, const char *key, const char *otherwise)
{
    const cJSON *item = member(object, key);
    return cJSON_IsString(item) ? item->valuestring : otherwise;
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = member(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void note_host(struct qd_origin *origin, const cJSON *own)
{
    const cJSON *machine = member(own, "machine");
    char text[sizeof origin->host];
    if (!cJSON_IsObject(machine)) return;
    snprintf(text, sizeof text, "%.120s (%.60s), %.0f of %.0f logical cores, %.1f GiB, %.120s",
             text_of(machine, "cpu_model", "unknown processor"), text_of(machine, "cpu_isa", "unknown"),
             number_of(machine, "n_cores"), number_of(machine, "n_cores_online"),
             number_of(machine, "memory_bytes") / (1 << 30), text_of(machine, "kernel", "unknown kernel"));
    note(origin->host, sizeof origin->host, text);
}

static void note_device(struct qd_origin *origin, const cJSON *own)
{
    const cJSON *device = member(own, "device");
    char text[sizeof origin->device];
    if (!cJSON_IsObject(device)) return;
    snprintf(text, sizeof text, "%.60s, %.40s, numerics %.20s, %.0f threads",
             text_of(device, "name", "unknown"), text_of(device, "isa", "no instruction set"),
             text_of(device, "numerics", "unknown"), number_of(device, "n_threads"));
    note(origin->device, sizeof origin->device, text);
    double gbps = number_of(device, "probed_read_gbps");
    if (gbps > 0) note_number(&origin->read_gbps, gbps);
}

static void note_workload(struct qd_origin *origin, const cJSON *run, const cJSON *own)
{
    const cJSON *workload = member(own, "workload");
    char text[sizeof origin->workload], limit[32] = "no limit";
    if (!cJSON_IsObject(workload)) return;
    double concurrency = number_of(run, "max_concurrency");
    if (concurrency > 0) snprintf(limit, sizeof limit, "%.0f", concurrency);
    snprintf(text, sizeof text, "%.40s, %.0f requests, concurrency %s, hash %.64s",
             text_of(workload, "kind", "unknown"), number_of(run, "num_prompts"), limit,
             text_of(workload, "hash", "unknown"));
    note(origin->workload, sizeof origin->workload, text);
    note_number(&origin->input_tokens, number_of(run, "total_input_tokens"));
    note_number(&origin->output_tokens, number_of(run, "total_output_tokens"));
}

static void note_load(struct qd_origin *origin, const cJSON *own)
{
    const cJSON *load = member(own, "load");
    char text[32];
    if (!cJSON_IsObject(load)) return;
    snprintf(text, sizeof text, "%.20s", text_of(load, "format", "unknown"));
    note(origin->load, sizeof origin->load, text);
    note_number(&origin->load_s, number_of(load, "duration_s"));
    note_number(&origin->load_gbps, number_of(load, "gbps"));
}

static void note_run(struct qd_origin *origin, const cJSON *run)
{
    const cJSON *own = member(run, "qdyno"), *warmup = member(own, "warmup");
    char text[128];
    note(origin->model, sizeof origin->model, text_of(run, "model_id", ""));
    snprintf(text, sizeof text, "%.60s (version %.30s)", text_of(own, "commit", "unknown"),
             text_of(own, "version", "unknown"));
    note(origin->commit, sizeof origin->commit, text);
    note_host(origin, own);
    note_device(origin, own);
    note_workload(origin, run, own);
    note_load(origin, own);
    if (cJSON_IsObject(warmup)) {
        snprintf(text, sizeof text, "%.0f before each run, not counted", number_of(warmup, "num_warmups"));
        note(origin->warmup, sizeof origin->warmup, text);
    }
}

/* Keeps "first to last"; dates sort as text. */
static void note_date(struct qd_origin *origin, const char *date)
{
    char first[24], last[24];
    if (date[0] == '\0') return;
    if (origin->dates[0] == '\0') {
        snprintf(origin->dates, sizeof origin->dates, "%.20s to %.20s", date, date);
        return;
    }
    if (sscanf(origin->dates, "%20s to %20s", first, last) != 2) return;
    if (strcmp(date, first) < 0) snprintf(first, sizeof first, "%.20s", date);
    if (strcmp(date, last) > 0) snprintf(last, sizeof last, "%.20s", date);
    snprintf(origin->dates, sizeof origin->dates, "%.20s to %.20s", first, last);
}

const struct qd_origin *qd_origin_list_find(const struct qd_origin_list *list, const char *variant)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->origins[i].variant, variant) == 0) return &list->origins[i];
    return NULL;
}

static struct qd_origin *find_or_append(struct qd_origin_list *list, const char *variant)
{
    const struct qd_origin *found = qd_origin_list_find(list, variant);
    if (found != NULL) return &list->origins[found - list->origins];
    struct qd_origin *grown = realloc(list->origins, (list->n + 1) * sizeof *grown);
    if (grown == NULL) return NULL;
    list->origins = grown;
    struct qd_origin *origin = &grown[list->n++];
    *origin = (struct qd_origin){0};
    snprintf(origin->variant, sizeof origin->variant, "%s", variant);
    return origin;
}

qd_status qd_origin_list_add(struct qd_origin_list *list, const char *variant, const cJSON *runs)
{
    struct qd_origin *origin = find_or_append(list, variant);
    const cJSON *run;
    if (origin == NULL) return QD_ERR_NO_MEMORY;
    cJSON_ArrayForEach (run, runs) {
        note_run(origin, run);
        note_date(origin, text_of(run, "date", ""));
    }
    return QD_OK;
}

void qd_origin_list_free(struct qd_origin_list *list)
{
    free(list->origins);
    *list = (struct qd_origin_list){0};
}
