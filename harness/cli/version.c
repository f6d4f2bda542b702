#include "harness/cli/version.h"

#include "commit.h"

const char *qd_version(void)
{
    return "0.1.0";
}

const char *qd_commit(void)
{
    return QD_COMMIT;
}
