/* The waterfalls of a cell's runs, read back from their results. */
#ifndef QD_HARNESS_RESULT_CELL_LEDGER_H
#define QD_HARNESS_RESULT_CELL_LEDGER_H

#include "harness/result/cells.h"

/* Lines of qdyno.ledger.waterfall_ns, over all runs [QD_MAX_CELL_RUNS at most]; a run without a ledger, or a
 * line that is null, is no sample. QD_ERR_INPUT names the field that is no number. */
qd_status qd_cell_ledger_read(const cJSON *runs, struct qd_cell_ledger *out, char *err, size_t errlen);

#endif
