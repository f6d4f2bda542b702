/* What steps and ops take on emulated GPUs, by events: segments add up to the span, and a kernel that is
 * slowed down shows in its own segment, where steps run op by op and where they are replayed. */
#include "tests/support/test.h"

#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/base/size.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/host.h"
#include "kernels/emu/emu.h"
#include "tests/support/model_run.h"

enum {
    PROMPT = 5,
    N_DECODES = 2,
    SLOW_NS = 4000000,
    CLOCK_NS = 1000 /* events are floats of milliseconds */
};

/* The kernel whose launches take longer, and how many did; meanwhile no kernel does anything else. */
static const char *_Atomic slow_name;
static _Atomic int n_slowed;

static void do_nothing(void *const *args, const void *kernel)
{
    (void)args, (void)kernel;
}

static int slow_down(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                     size_t errlen)
{
    (void)arg_sizes, (void)n_args, (void)err, (void)errlen;
    const char *name = slow_name;
    if (name == NULL) return 0;
    launch->call = do_nothing;
    if (launch->device != 0 || strcmp(launch->name, name) != 0) return 0;
    n_slowed++;
    nanosleep(&(struct timespec){.tv_nsec = SLOW_NS}, NULL);
    return 0;
}

/* Tokens [begin, end) of a sequence whose page is the first after the null page. */
static void fill_step(struct qd_step *step, const struct qd_step_limits *limits, int32_t begin, int32_t end)
{
    assert_int_equal(qd_step_begin(step, limits, end - begin, 1, 1, 1), QD_OK);
    for (int32_t position = begin; position < end; position++) {
        qd_step_token_source(step)[position - begin] = position < PROMPT ? 11 + position : -1;
        qd_step_position(step)[position - begin] = position;
        qd_step_slot_mapping(step)[position - begin] = QD_KV_BLOCK_SIZE + position;
    }
    qd_step_cu_seqlens_q(step)[0] = qd_step_block_offset(step)[0] = 0;
    qd_step_cu_seqlens_q(step)[1] = end - begin;
    qd_step_block_offset(step)[1] = 1;
    qd_step_kv_len(step)[0] = end;
    qd_step_block_table(step)[0] = 1;
    qd_step_logit_row(step)[0] = end - begin - 1;
    qd_step_sampling(step)[0] = (struct qd_sampling){.top_p = 1};
}

static void run_step(struct model_run *run, const struct qd_step *step)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_result result;
    int64_t before_ns = qd_clock_now_ns();
    ASSERT_OK(qd_group_launch(run->group, step, err, sizeof err), err);
    ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
    int64_t after_ns = qd_clock_now_ns(), span_ns = qd_group_get_stats(run->group).last_span_ns;
    assert_true(span_ns > 0);
    assert_true(result.step_begin_ns >= before_ns - CLOCK_NS);
    assert_true(result.step_end_ns - result.step_begin_ns >= span_ns - CLOCK_NS);
    assert_true(result.step_end_ns <= after_ns);
}

struct how {
    int tp;
    bool enforce_eager, device_timing;
    const char *slow; /* kernel, or NULL */
};

/* A prompt and its decodes. */
static struct qd_device_stats measure(struct how how)
{
    const struct run_options options = {.max_tokens = 16,
                                        .max_logit_rows = 1,
                                        .max_model_len = 64,
                                        .enforce_eager = how.enforce_eager,
                                        .device_timing = how.device_timing};
    qd_model_t *model = make_model("micro", &qd_emu_ops, how.tp);
    struct model_run run;
    slow_name = NULL;
    qd_emu_set_replace(slow_down);
    model_run_open(&run, model, &qd_emu_ops, &options);
    slow_name = how.slow;
    n_slowed = 0;
    struct qd_step *step = calloc(1, qd_step_capacity(&run.limits));
    assert_non_null(step);
    for (int i = 0; i <= N_DECODES; i++) {
        int32_t end = PROMPT + i;
        fill_step(step, &run.limits, i == 0 ? 0 : end - 1, end);
        run_step(&run, step);
    }
    struct qd_device_stats stats = qd_group_get_stats(run.group);
    free(step);
    model_run_close(&run);
    qd_emu_set_replace(NULL);
    qd_model_free(model);
    assert_int_equal(stats.n_eager_steps, how.enforce_eager ? 1 + N_DECODES : 1);
    assert_int_equal(stats.n_eager_steps + stats.n_replayed_steps, 1 + N_DECODES);
    return stats;
}

static int64_t sum_of(const struct qd_device_stats *stats)
{
    int64_t sum = 0;
    for (int i = 0; i < QD_N_SEGMENTS; i++) sum += stats->segment_ns[i];
    return sum;
}

static void spans_are_always_measured(void **state)
{
    (void)state;
    struct qd_device_stats stats = measure((struct how){.tp = 1});
    assert_true(stats.span_ns > stats.last_span_ns);
    assert_int_equal(stats.n_timed_steps, 0);
    assert_int_equal(sum_of(&stats), 0);
}

/* A decode with the events of its ops and without, as it will run: replayed, or op by op. Two events an op;
 * and nothing of it where nobody asked. */
static void what_timing_costs_is_measured(void **state)
{
    (void)state;
    const int n_layers = 2, n_ops = 1 + 1 + 8 * n_layers + 2;
    for (int eager = 0; eager < 2; eager++) {
        struct how how = {.tp = 2, .enforce_eager = eager != 0, .device_timing = true};
        struct qd_timing_cost cost = measure(how).timing_cost;
        assert_int_equal(cost.n_steps, QD_CUDA_OVERHEAD_STEPS);
        assert_int_equal(cost.n_events, 2 * n_ops);
        for (int kind = 0; kind < QD_N_TIMING_KINDS; kind++) {
            assert_true(cost.span_ns[kind] > 0);
            assert_true(cost.wall_ns[kind] >= cost.span_ns[kind] - CLOCK_NS);
        }
        how.device_timing = false;
        assert_int_equal(measure(how).timing_cost.n_steps, 0);
    }
}

static void segments_add_up_to_the_span(void **state)
{
    (void)state;
    for (int tp = 1; tp <= 2; tp++) {
        for (int eager = 0; eager < 2; eager++) {
            struct qd_device_stats stats =
                measure((struct how){.tp = tp, .enforce_eager = eager != 0, .device_timing = true});
            assert_int_equal(stats.n_timed_steps, 1 + N_DECODES);
            assert_int_equal(stats.timed_span_ns, stats.span_ns);
            int64_t unexplained = stats.span_ns - sum_of(&stats);
            assert_true(100 * (unexplained < 0 ? -unexplained : unexplained) < stats.span_ns);
            for (int i = 0; i < QD_N_SEGMENTS; i++) {
                bool has_none = i == QD_SEGMENT_COLLECTIVE && tp == 1;
                assert_int_equal(stats.segment_ns[i] > 0, !has_none);
            }
        }
    }
}

static const struct {
    const char *kernel;
    int tp;
    enum qd_segment segment;
} owners[] = {
    {"gemm_skinny_direct", 1, QD_SEGMENT_LINEAR},
    {"attention_prefill", 1, QD_SEGMENT_ATTENTION},
    {"attention_decode", 1, QD_SEGMENT_ATTENTION},
    {"embed", 1, QD_SEGMENT_NORM_ROPE},
    {"rmsnorm", 1, QD_SEGMENT_NORM_ROPE},
    {"qk_norm_rope_kv", 1, QD_SEGMENT_NORM_ROPE},
    {"reduce_add_rmsnorm", 1, QD_SEGMENT_NORM_ROPE},
    {"sample", 1, QD_SEGMENT_SAMPLING},
    {"step_unpack", 1, QD_SEGMENT_GAP},
    {"reduce_add_rmsnorm", 2, QD_SEGMENT_COLLECTIVE},
    {"sample", 2, QD_SEGMENT_SAMPLING},
};

/* The slow launches' time is in the segment that owns them: the others take next to nothing. */
static void every_kernel_has_its_segment(void **state)
{
    const bool eager = *(const int *)*state != 0;
    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++) {
        struct qd_device_stats slow = measure((struct how){
            .tp = owners[i].tp, .enforce_eager = eager, .device_timing = true, .slow = owners[i].kernel});
        int64_t own = slow.segment_ns[owners[i].segment], least = (int64_t)n_slowed * SLOW_NS;
        assert_true(n_slowed > 0);
        if (own < least) fail_msg("%s: %lld of %lld ns", owners[i].kernel, (long long)own, (long long)least);
    }
}

static int modes[] = {0, 1};

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_are_always_measured),
        cmocka_unit_test(what_timing_costs_is_measured),
        cmocka_unit_test(segments_add_up_to_the_span),
        {"every_kernel_has_its_segment_replayed", every_kernel_has_its_segment, NULL, NULL, &modes[0]},
        {"every_kernel_has_its_segment_eager", every_kernel_has_its_segment, NULL, NULL, &modes[1]},
    };
    return cmocka_run_group_tests_name("cuda_timing", tests, NULL, NULL);
}
