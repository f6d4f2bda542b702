/* What `qdyno --version` and every result file say about this build. */
#ifndef QD_HARNESS_CLI_VERSION_H
#define QD_HARNESS_CLI_VERSION_H

const char *qd_version(void); /* e.g. "0.1.0" */
const char *qd_commit(void);  /* abbreviated, "-dirty" when the tree was */

#endif
