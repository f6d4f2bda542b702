#include "kernels/cpu/host/pack.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/cpu.h"

size_t qd_cpu_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    if (n_rows < 0 || n_cols < 0 || n_rows > INT64_MAX - QD_CPU_PANEL) return SIZE_MAX;
    size_t rows = (size_t)n_rows, bytes;
    if (layout == QD_LAYOUT_PACKED) rows = qd_round_up(rows, QD_CPU_PANEL);
    if (!qd_size_mul(rows, (size_t)n_cols, &bytes) || !qd_size_mul(bytes, sizeof(qd_bf16), &bytes))
        return SIZE_MAX;
    return bytes;
}

/* rows [n_rows <= 16][n_cols] to panel [n_cols][16]; lanes without a row become zero */
static void transpose_panel(const qd_bf16 *rows, int64_t n_rows, int64_t n_cols, qd_bf16 *panel)
{
    if (n_rows < QD_CPU_PANEL) memset(panel, 0, (size_t)n_cols * QD_CPU_PANEL * sizeof *panel);
    /* a block of columns at a time, so that the written lines stay in the first cache */
    enum { COLUMNS = 64 };
    for (int64_t k0 = 0; k0 < n_cols; k0 += COLUMNS) {
        int64_t k1 = k0 + COLUMNS < n_cols ? k0 + COLUMNS : n_cols;
        for (int64_t row = 0; row < n_rows; row++)
            for (int64_t k = k0; k < k1; k++)
                panel[k * QD_CPU_PANEL + qd_cpu_panel_lane(row)] = rows[row * n_cols + k];
    }
}

qd_status qd_cpu_pack_weight(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen)
{
    size_t total = qd_cpu_weight_bytes(n_rows, n_cols, QD_LAYOUT_PACKED);
    if (total == SIZE_MAX)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "weight of %lld x %lld elements", (long long)n_rows,
                       (long long)n_cols);
    if (total == 0) return QD_OK;
    size_t panel_values = (size_t)n_cols * QD_CPU_PANEL;
    qd_bf16 *rows = malloc(panel_values * sizeof *rows);
    if (rows == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes to pack a weight",
                       panel_values * sizeof *rows);

    /* A panel takes exactly the place of the 16 rows that it is made of. */
    qd_bf16 *panel = data;
    for (int64_t row = 0; row < n_rows; row += QD_CPU_PANEL, panel += panel_values) {
        int64_t present = n_rows - row < QD_CPU_PANEL ? n_rows - row : QD_CPU_PANEL;
        memcpy(rows, panel, (size_t)(present * n_cols) * sizeof *rows);
        transpose_panel(rows, present, n_cols, panel);
    }
    free(rows);
    return QD_OK;
}
