#include "harness/cli/stop_text.h"

#include <stdlib.h>
#include <string.h>

void qd_stop_text_init(struct qd_stop_text *stop, const char *const *stops, int n_stops)
{
    *stop = (struct qd_stop_text){.stops = stops, .n_stops = n_stops};
    for (int i = 0; i < n_stops; i++) {
        size_t len = strlen(stops[i]);
        if (len > stop->n_held_most + 1) stop->n_held_most = len - 1;
    }
}

void qd_stop_text_free(struct qd_stop_text *stop)
{
    free(stop->text);
    *stop = (struct qd_stop_text){0};
}

static void drop_given(struct qd_stop_text *stop)
{
    if (stop->n_given > 0) memmove(stop->text, stop->text + stop->n_given, stop->len - stop->n_given);
    stop->len -= stop->n_given;
    stop->n_given = 0;
}

static qd_status append(struct qd_stop_text *stop, const char *text, size_t len, char *err, size_t errlen)
{
    if (stop->room - stop->len < len) {
        size_t room = 2 * (stop->len + len);
        char *grown = realloc(stop->text, room);
        if (grown == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu bytes of output", room);
        stop->text = grown;
        stop->room = room;
    }
    if (len > 0) memcpy(stop->text + stop->len, text, len);
    stop->len += len;
    return QD_OK;
}

/* Bytes before the stop string; all, when there is none. What was searched before holds no whole one, so that
 * the earliest occurrence of each ends in the new bytes. */
static size_t find_stop(const struct qd_stop_text *stop, bool *has_ended)
{
    for (int i = 0; i < stop->n_stops; i++) {
        const char *at =
            stop->len > 0 ? memmem(stop->text, stop->len, stop->stops[i], strlen(stop->stops[i])) : NULL;
        if (at == NULL) continue;
        *has_ended = true;
        return (size_t)(at - stop->text);
    }
    *has_ended = false;
    return stop->len;
}

/* A byte inside a UTF-8 sequence. */
static bool is_continuation(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

qd_status qd_stop_text_push(struct qd_stop_text *stop, const char *text, size_t len, const char **given,
                            size_t *n_given, bool *has_ended, char *err, size_t errlen)
{
    drop_given(stop);
    QD_TRY(append(stop, text, len, err, errlen));
    size_t n = find_stop(stop, has_ended);
    if (*has_ended) {
        stop->len = n;
    } else {
        n = n > stop->n_held_most ? n - stop->n_held_most : 0;
        while (n > 0 && n < stop->len && is_continuation(stop->text[n])) n--; /* never half a character */
    }
    stop->n_given = n;
    *given = stop->text;
    *n_given = n;
    return QD_OK;
}

void qd_stop_text_finish(struct qd_stop_text *stop, const char **given, size_t *n_given)
{
    drop_given(stop);
    *given = stop->text;
    *n_given = stop->n_given = stop->len;
}
