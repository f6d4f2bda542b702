/* Steps for tests: sequences with shuffled pages, given by how much is cached and how much is new. */
#ifndef QD_TESTS_SUPPORT_STEPS_H
#define QD_TESTS_SUPPORT_STEPS_H

#include <stddef.h>

#include "kernels/step.h"

/* One sequence's part in a step. The same seq keeps its pages from step to step. */
struct chunk {
    int32_t seq;   /* 0 .. n_seqs of the pool - 1 */
    int32_t prior; /* keys already in the pool */
    int32_t q_len; /* tokens of this step */
};

/* Pages of n_seqs sequences of at most max_len tokens, dealt in shuffled order. */
struct page_deal {
    int32_t n_seqs, pages_per_seq;
    int32_t n_kv_blocks; /* more than are used: some pages belong to nobody */
    int32_t *page;       /* [n_seqs * pages_per_seq] */
};
struct page_deal page_deal_init(int32_t n_seqs, int32_t max_len, uint64_t seed);
void page_deal_free(struct page_deal *deal);

/* A valid step of these chunks with exact limits: token ids are (7 * seq + 13 * position) % 101, the last
 * token of each chunk is a greedy logit row that keeps nothing. The caller frees it. */
struct qd_step *new_step(const struct page_deal *deal, const struct chunk *chunks, int32_t n_chunks);

/* Tokens of all chunks. */
int32_t count_tokens(const struct chunk *chunks, int32_t n_chunks);

/* A step of n_rows one-token sequences, for sampling tests: row i samples as sampling[i] says. */
struct qd_step *new_sampling_step(const struct qd_sampling *sampling, int32_t n_rows);

#endif
