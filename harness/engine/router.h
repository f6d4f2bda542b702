/* The router: which replica a request goes to. */
#ifndef QD_HARNESS_ENGINE_ROUTER_H
#define QD_HARNESS_ENGINE_ROUTER_H

#include <stdint.h>

#include "harness/engine/engine.h"

/* The replica of the request with this id among dp replicas. Round robin goes by order of submission, dead
 * replicas included, so that a run stays a function of its inputs. */
int qd_router_pick(enum qd_router router, uint64_t id, int dp);

#endif
