#include "models/bpe.h"

#include <stdlib.h>

/* A run of bytes that is one token so far. `rank` belongs to the pair that starts here. */
struct qd_bpe_symbol {
    int32_t id, prev, next; /* prev and next: neighbours' indices, -1 at the ends */
    int32_t rank, merged;   /* rank -1: this pair does not merge, or the symbol is gone; merged: the new id */
};

void qd_bpe_free(struct qd_bpe *bpe)
{
    free(bpe->slots);
    *bpe = (struct qd_bpe){0};
}

void qd_bpe_scratch_free(struct qd_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct qd_bpe_scratch){0};
}

/* The slot that holds the pair, or the free one where it would go. */
static size_t find_slot(const struct qd_merge_slot *slots, size_t n_slots, uint64_t pair)
{
    size_t mask = n_slots - 1;
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & mask;
    while (slots[i].pair != pair && slots[i].pair != UINT64_MAX) i = (i + 1) & mask;
    return i;
}

static uint64_t make_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

qd_status qd_bpe_reserve(struct qd_bpe *bpe, size_t n, char *err, size_t errlen)
{
    size_t n_slots = bpe->n_slots == 0 ? 1024 : bpe->n_slots;
    while (2 * n_slots < 3 * n) n_slots *= 2;
    if (n_slots == bpe->n_slots) return QD_OK;
    struct qd_merge_slot *slots = malloc(n_slots * sizeof *slots);
    if (slots == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "hash table of %zu merges", n_slots);
    for (size_t i = 0; i < n_slots; i++) slots[i].pair = UINT64_MAX;
    for (size_t i = 0; i < bpe->n_slots; i++)
        if (bpe->slots[i].pair != UINT64_MAX)
            slots[find_slot(slots, n_slots, bpe->slots[i].pair)] = bpe->slots[i];
    free(bpe->slots);
    bpe->slots = slots;
    bpe->n_slots = n_slots;
    return QD_OK;
}

qd_status qd_bpe_add(struct qd_bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t id, char *err,
                     size_t errlen)
{
    QD_TRY(qd_bpe_reserve(bpe, bpe->n_merges + 1, err, errlen));
    uint64_t pair = make_pair(left, right);
    struct qd_merge_slot *slot = &bpe->slots[find_slot(bpe->slots, bpe->n_slots, pair)];
    if (slot->pair == UINT64_MAX) bpe->n_merges++;
    *slot = (struct qd_merge_slot){pair, rank, id};
    return QD_OK;
}

static qd_status reserve(struct qd_bpe_scratch *scratch, size_t len, char *err, size_t errlen)
{
    if (len <= scratch->room) return QD_OK;
    size_t room = len < 512 ? 512 : len;
    qd_bpe_scratch_free(scratch);
    /* Each byte but the last starts a pair, and each of at most len - 1 merges adds at most two. */
    scratch->symbols = malloc(room * sizeof *scratch->symbols);
    scratch->heap = malloc(3 * room * sizeof *scratch->heap);
    if (scratch->symbols == NULL || scratch->heap == NULL) {
        qd_bpe_scratch_free(scratch);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "a word of %zu bytes", len);
    }
    scratch->room = room;
    return QD_OK;
}

/* The heap's order is rank, then position: the smallest key is what merges next. */
static void heap_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;
    for (size_t parent; i > 0 && heap[parent = (i - 1) / 2] > key; i = parent) heap[i] = heap[parent];
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *n; i = child) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* Looks up the pair that starts at symbol i and queues it if it merges. */
static void queue_pair(const struct qd_bpe *bpe, struct qd_bpe_symbol *symbols, int32_t i, uint64_t *heap,
                       size_t *n_heap)
{
    struct qd_bpe_symbol *symbol = &symbols[i];
    symbol->rank = -1;
    if (symbol->next < 0 || bpe->n_slots == 0) return;
    uint64_t pair = make_pair(symbol->id, symbols[symbol->next].id);
    const struct qd_merge_slot *slot = &bpe->slots[find_slot(bpe->slots, bpe->n_slots, pair)];
    if (slot->pair == UINT64_MAX) return;
    symbol->rank = slot->rank;
    symbol->merged = slot->id;
    heap_push(heap, n_heap, (uint64_t)(uint32_t)slot->rank << 32 | (uint32_t)i);
}

static void merge_at(const struct qd_bpe *bpe, struct qd_bpe_symbol *symbols, int32_t i, uint64_t *heap,
                     size_t *n_heap)
{
    struct qd_bpe_symbol *left = &symbols[i], *right = &symbols[left->next];
    left->id = left->merged;
    left->next = right->next;
    right->rank = -1; /* what the heap still says about it is stale */
    if (left->next >= 0) symbols[left->next].prev = i;
    queue_pair(bpe, symbols, i, heap, n_heap);
    if (left->prev >= 0) queue_pair(bpe, symbols, left->prev, heap, n_heap);
}

qd_status qd_bpe_encode(const struct qd_bpe *bpe, struct qd_bpe_scratch *scratch, const char *word,
                        size_t len, int32_t *ids, size_t *n_ids, char *err, size_t errlen)
{
    QD_TRY(reserve(scratch, len, err, errlen));
    struct qd_bpe_symbol *symbols = scratch->symbols;
    uint64_t *heap = scratch->heap;
    size_t n_heap = 0, n = 0;
    for (size_t i = 0; i < len; i++)
        symbols[i] = (struct qd_bpe_symbol){.id = bpe->byte_id[(unsigned char)word[i]],
                                            .prev = (int32_t)i - 1,
                                            .next = i + 1 < len ? (int32_t)i + 1 : -1};
    for (size_t i = 0; i < len; i++) queue_pair(bpe, symbols, (int32_t)i, heap, &n_heap);
    while (n_heap > 0) {
        uint64_t key = heap_pop(heap, &n_heap);
        int32_t i = (int32_t)(key & UINT32_MAX);
        if (symbols[i].rank == (int32_t)(key >> 32)) merge_at(bpe, symbols, i, heap, &n_heap);
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next) ids[n++] = symbols[i].id;
    *n_ids = n;
    return QD_OK;
}
