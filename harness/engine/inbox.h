/* The commands of the clients on their way to one replica, and the table of its living requests.
 *
 * The replica empties it once per step, so what arrives under one lock enters the scheduler in one step. A
 * request is in the table from its submission until the replica forgets it; only while it is there may an
 * abort touch it.
 */
#ifndef QD_HARNESS_ENGINE_INBOX_H
#define QD_HARNESS_ENGINE_INBOX_H

#include <pthread.h>

#include "harness/engine/request.h"

struct qd_inbox {
    pthread_mutex_t mutex;
    pthread_cond_t command, parked_cond;
    struct qd_live_request *submitted, *submitted_last; /* chain through next */
    struct qd_live_request *aborts;                     /* chain through abort_next */
    struct qd_live_request **table;                     /* [n_buckets] chains through hash_next */
    size_t n_buckets;                                   /* a power of two */
    bool stop;
    bool parked; /* the replica waits for commands */
};

/* What one emptying brought. */
struct qd_commands {
    struct qd_live_request *submitted; /* in order of submission, through next */
    struct qd_live_request *aborted;   /* through abort_next; all of them still live */
    bool has_waited;                   /* for the first of them */
};

/* `max_requests` sizes the table. */
qd_status qd_inbox_init(struct qd_inbox *inbox, size_t max_requests, char *err, size_t errlen);

/* Frees the table and every request still in it. Harmless on a zeroed struct. */
void qd_inbox_free(struct qd_inbox *inbox);

/* clients */
void qd_inbox_submit(struct qd_inbox *inbox, struct qd_live_request *first, struct qd_live_request *last);
bool qd_inbox_abort(struct qd_inbox *inbox, uint64_t id); /* false: no such request here */
void qd_inbox_stop(struct qd_inbox *inbox);

/* Locks the inbox once the replica waits with nothing left to do; the caller unlocks. */
void qd_inbox_lock_parked(struct qd_inbox *inbox);
void qd_inbox_unlock(struct qd_inbox *inbox);

/* The replica. Takes all commands; with may_wait it sleeps until there is one. False: stop. */
bool qd_inbox_take(struct qd_inbox *inbox, bool may_wait, struct qd_commands *out);

bool qd_inbox_has_submitted(struct qd_inbox *inbox); /* what it has not taken yet */

/* Takes ended requests (chain through next) out of the table, and out of the queued aborts. */
void qd_inbox_forget(struct qd_inbox *inbox, struct qd_live_request *ended);

#endif
