#include "harness/engine/router.h"

int qd_router_pick(enum qd_router router, uint64_t id, int dp)
{
    switch (router) {
    case QD_ROUTER_ROUND_ROBIN: break;
    }
    return (int)(id % (uint64_t)dp);
}
