/* The first bytes of a safetensors file, with 64 KiB of data imagined behind them, then the search for a
 * small model's tensors in what was found. */
#include <stdint.h>
#include <stdlib.h>

#include "models/checkpoint.h"
#include "models/tensors.h"

enum { N_DATA_BYTES = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct qd_model_config CONFIG = {.hidden_dim = 2,
                                              .ffn_dim = 2,
                                              .vocab_size = 2,
                                              .n_layers = 1,
                                              .n_heads = 1,
                                              .n_kv_heads = 1,
                                              .head_dim = 2};

static void match(struct qd_tensor_list tensors)
{
    char err[QD_ERR_LEN];
    struct qd_checkpoint_file file = {"file", -1, 0};
    struct qd_checkpoint checkpoint = {.files = &file, .n_files = 1, .tensors = tensors};
    const struct qd_tensor **found = calloc((size_t)qd_model_n_tensors(&CONFIG), sizeof *found);
    if (found != NULL) qd_checkpoint_match(&checkpoint, &CONFIG, found, err, sizeof err);
    free(found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[QD_ERR_LEN];
    size_t n;
    struct qd_tensor_list list = {0};
    if (size < QD_SAFETENSORS_PREFIX) return 0;
    uint64_t n_file_bytes = size + N_DATA_BYTES;
    if (qd_safetensors_header_bytes(data, n_file_bytes, "file", &n, err, sizeof err) != QD_OK) return 0;
    /* The header cannot be longer than the input; a shorter one tests more of the parser. */
    if (n > size - QD_SAFETENSORS_PREFIX) n = size - QD_SAFETENSORS_PREFIX;
    const char *header = (const char *)data + QD_SAFETENSORS_PREFIX;
    qd_status status =
        qd_safetensors_parse_header(header, n, n_file_bytes, "file", 0, &list, err, sizeof err);
    if (status == QD_OK) {
        qd_tensor_list_sort(&list);
        match(list);
    }
    qd_tensor_list_free(&list);
    return 0;
}
