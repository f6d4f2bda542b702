/* Weights on their way to a device's own memory. A tensor's rows leave the staging as they were read: the
 * copies themselves put them in place, so that nobody touches them twice. Columns of a rank and groups of 8
 * rows of gate or up are rows with a stride. */
#include "models/arrange.h"
#include "models/dummy.h"

enum { GROUP = 8 }; /* rows of gate or of up that lie together */

/* One rank's slice of a tensor and where it goes. */
struct placing {
    struct qd_slice slice;
    qd_bf16 *to;    /* the arranged weight */
    int64_t stride; /* elements from one of its rows to the next */
    int64_t n_cols; /* of the tensor */
};

static qd_status place(const struct qd_arrangement *a, const struct qd_tensor_spec *spec, struct placing *out,
                       char *err, size_t errlen)
{
    bool rows = qd_tensor_is_norm(spec->role) ||
                (spec->role == QD_TENSOR_EMBEDDING && !a->config->tie_word_embeddings);
    out->slice = qd_shard_slice(a->config, &a->shards[0], spec);
    out->to = qd_arrangement_destination(a, spec, 0);
    out->stride = a->ops->store->row_stride(out->slice.n_cols, rows ? QD_LAYOUT_ROWS : QD_LAYOUT_PACKED);
    out->n_cols = spec->cols;
    bool whole = out->slice.n_rows % GROUP == 0 && out->stride == spec->cols;
    if (out->slice.interleave != QD_INTERLEAVE_NONE && !whole)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "%lld rows of %lld of gate and up: not in whole groups", (long long)out->slice.n_rows,
                       (long long)spec->cols);
    return QD_OK;
}

/* Rows [i, i + n) of the slice, which are at `from`. */
static struct qd_store_copy make_copy(const struct placing *p, int64_t i, int64_t n, const qd_bf16 *from)
{
    bool grouped = p->slice.interleave != QD_INTERLEAVE_NONE;
    int64_t rows = grouped ? GROUP : 1, apart = grouped ? 2 * GROUP : 1; /* of what is copied at once */
    QD_ASSERT(i % rows == 0 && n % rows == 0);                           /* as the loader cuts its chunks */
    return (struct qd_store_copy){
        .to = p->to + qd_slice_dst_row(&p->slice, i) * p->stride,
        .from = from + p->slice.col_begin,
        .n_rows = (size_t)(n / rows),
        .row_bytes = (size_t)(rows * p->slice.n_cols) * sizeof *from,
        .to_stride = (size_t)(apart * p->stride) * sizeof *from,
        .from_stride = (size_t)(rows * p->n_cols) * sizeof *from,
    };
}

qd_status qd_arrangement_send(const struct qd_arrangement *a, const struct qd_tensor_spec *spec, int64_t row,
                              int64_t n_rows, const qd_bf16 *rows, int lane, char *err, size_t errlen)
{
    struct placing p;
    QD_TRY(place(a, spec, &p, err, errlen));
    int64_t begin = row > p.slice.row_begin ? row : p.slice.row_begin;
    int64_t end = row + n_rows, slice_end = p.slice.row_begin + p.slice.n_rows;
    if (end > slice_end) end = slice_end;
    if (begin >= end) return QD_OK;
    const struct qd_store_copy copy =
        make_copy(&p, begin - p.slice.row_begin, end - begin, rows + (begin - row) * spec->cols);
    return a->ops->store->copy(a->store, lane, &copy, err, errlen);
}

qd_status qd_arrangement_fill(const struct qd_arrangement *a, const struct qd_tensor_spec *spec,
                              uint64_t seed, char *err, size_t errlen)
{
    struct placing p;
    QD_TRY(place(a, spec, &p, err, errlen));
    if (p.slice.n_rows == 0) return QD_OK;
    struct qd_dummy_draw draw = qd_dummy_draw(a->config, spec);
    const struct qd_store_fill fill = {
        .seed = seed,
        .tensor = draw.stream,
        .width = draw.width,
        .n_cols = spec->cols,
        .row_begin = p.slice.row_begin,
        .n_rows = p.slice.n_rows,
        .col_begin = p.slice.col_begin,
        .n_slice_cols = p.slice.n_cols,
        .interleaved = p.slice.interleave != QD_INTERLEAVE_NONE,
        .to = p.to + qd_slice_dst_row(&p.slice, 0) * p.stride,
        .ld = p.stride,
    };
    return a->ops->store->fill(a->store, &fill, err, errlen);
}
