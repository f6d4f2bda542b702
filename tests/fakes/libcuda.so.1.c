/* A driver that tells its version and no more: QD_FAKE_CUDA=12040 for one of CUDA 12.4, else 13000. */
#include <stdlib.h>

int cuDriverGetVersion(int *version);

int cuDriverGetVersion(int *version)
{
    const char *given = getenv("QD_FAKE_CUDA");
    *version = given != NULL ? atoi(given) : 13000;
    return 0;
}
