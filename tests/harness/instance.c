/* The plan of an instance: defaults, what shrinks, what is refused and with which arithmetic. */
#include "tests/support/test.h"

#include "harness/engine/instance.h"
#include "kernels/base/size.h"

/* Bytes of the `micro` preset with one rank, by hand: hidden 256, 2 layers, 8 heads, 2 KV heads of 128, ffn 512,
 * 515 ids, tied. Matrices are stored in panels of 16 rows: 515 ids take 528 rows. */
enum {
    MICRO_LAYER_VALUES = (8 + 2 * 2) * 128 * 256 + 256 * 1024 + 2 * 512 * 256 + 256 * 512,
    MICRO_NORM_VALUES = 2 * (2 * 256 + 2 * 128) + 256,
    MICRO_WEIGHT_BYTES = 2 * (2 * MICRO_LAYER_VALUES + MICRO_NORM_VALUES + 528 * 256),
    MICRO_PAGE_BYTES = 16 * 2 * 2 * 2 * 128 * 2, /* tokens, layers, K and V, heads, head_dim, bf16 */
    MICRO_CONTEXT = 4096,
    MIB = 1 << 20,
};

static struct qd_instance_options options_of(const char *preset)
{
    return (struct qd_instance_options){
        .model = preset,
        .load_format = QD_LOAD_DUMMY,
        .device = "cpu",
        .cpu_isa = "portable",
        .tp = 1,
        .dp = 1,
        .n_threads = 1,
        .memory_utilization = 1.0,
        .max_requests = 16,
    };
}

static struct qd_instance_plan plan_of(const struct qd_instance_options *options)
{
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_instance_plan_make(options, &plan, err, sizeof err), err);
    return plan;
}

/* Every refusal names its reason. */
static void refuse(const struct qd_instance_options *options, qd_status expected, const char *reason)
{
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    qd_status status = qd_instance_plan_make(options, &plan, err, sizeof err);
    if (status != expected)
        fail_msg("%s (\"%s\"), expected %s", qd_status_name(status), err, qd_status_name(expected));
    ASSERT_CONTAINS(err, reason);
}

static double gib(size_t bytes)
{
    return (double)bytes / 1073741824.0;
}

static void defaults_are_those_of_the_design(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.limits.max_tokens, 2048);
    assert_int_equal(plan.limits.max_seqs, 128);
    assert_int_equal(plan.limits.max_logit_rows, 128);
    assert_int_equal(plan.max_model_len, MICRO_CONTEXT);
    assert_int_equal(plan.n_kv_blocks, 128 * MICRO_CONTEXT / 16 + 1); /* 1 GiB, and the null page */
    assert_int_equal(plan.limits.max_blocks, 128 * MICRO_CONTEXT / 16);
    assert_false(plan.lowered_seqs || plan.shrunk_pool || plan.shrunk_model_len);
    assert_int_equal(plan.weight_bytes, MICRO_WEIGHT_BYTES);
    assert_int_equal(plan.kv_block_bytes, MICRO_PAGE_BYTES);
    assert_int_equal(plan.kv_bytes, (size_t)plan.n_kv_blocks * MICRO_PAGE_BYTES);
}

static void budget_and_sequences(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.max_num_batched_tokens = 16;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.limits.max_seqs, 16);
    assert_true(plan.lowered_seqs);
    options.max_num_seqs = 16;
    assert_false(plan_of(&options).lowered_seqs);
    options.max_num_seqs = 17;
    refuse(&options, QD_ERR_INPUT, "max_num_batched_tokens 16 is smaller than max_num_seqs 17");
    options.max_num_batched_tokens = 0;
    options.max_num_seqs = 2049;
    refuse(&options, QD_ERR_INPUT, "max_num_batched_tokens 2048 is smaller than max_num_seqs 2049");
    options = options_of("micro");
    options.max_num_seqs = 4;
    options.max_logit_rows = 64;
    assert_int_equal(plan_of(&options).limits.max_logit_rows, 64);
    options.max_logit_rows = 3;
    assert_int_equal(plan_of(&options).limits.max_logit_rows, 4);
}

static void a_pool_of_a_given_size(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.n_kv_blocks = 24;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.n_kv_blocks, 24);
    assert_int_equal(plan.max_model_len, 23 * 16); /* the null page holds nothing */
    assert_true(plan.shrunk_model_len);
    assert_false(plan.shrunk_pool);
    assert_int_equal(plan.limits.max_blocks, 24);
    assert_int_equal(plan.kv_bytes, 24 * MICRO_PAGE_BYTES);
    options.max_model_len = 23 * 16;
    assert_false(plan_of(&options).shrunk_model_len);
    options.max_model_len = 23 * 16 + 1;
    refuse(&options, QD_ERR_INPUT, "max_model_len 369 needs 25 KV pages, the pool has 24");
    options.max_model_len = 0;
    options.n_kv_blocks = 2;
    assert_int_equal(plan_of(&options).max_model_len, 16);
    options.n_kv_blocks = 1;
    refuse(&options, QD_ERR_INPUT, "2 are the least");

    options.n_kv_blocks = 0;
    options.kv_cache_bytes = 10 * MICRO_PAGE_BYTES + MICRO_PAGE_BYTES - 1;
    assert_int_equal(plan_of(&options).n_kv_blocks, 10);
    options.tp = 2; /* bytes are per rank, and a rank holds half a page */
    plan = plan_of(&options);
    assert_int_equal(plan.n_kv_blocks, 21);
    assert_int_equal(plan.kv_block_bytes, MICRO_PAGE_BYTES);
    options.tp = 1;
    options.kv_cache_bytes = 2 * MICRO_PAGE_BYTES - 1;
    refuse(&options, QD_ERR_INPUT, "2 are the least");
    options.kv_cache_bytes = 1; /* not the same as none given */
    refuse(&options, QD_ERR_INPUT, "2 are the least");
}

/* What the fixed parts of micro take, from a plan; the device's own memory among them. */
static size_t fixed_bytes(const struct qd_instance_options *options)
{
    struct qd_instance_plan plan = plan_of(options);
    return plan.weight_bytes + plan.activation_bytes;
}

static void the_pool_shrinks_to_the_memory(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.max_num_batched_tokens = 64;
    options.max_num_seqs = 4;
    size_t fixed = fixed_bytes(&options);
    options.memory_limit = fixed + 600 * MICRO_PAGE_BYTES + MICRO_PAGE_BYTES / 2;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.memory.source, QD_MEMORY_OPTION);
    assert_int_equal(plan.usable_bytes, options.memory_limit);
    assert_int_equal(plan.n_kv_blocks, 600);
    assert_true(plan.shrunk_pool);
    assert_int_equal(plan.max_model_len, MICRO_CONTEXT);
    assert_false(plan.shrunk_model_len);

    options.memory_limit = fixed + 100 * MICRO_PAGE_BYTES; /* less than one sequence of the full length */
    plan = plan_of(&options);
    assert_int_equal(plan.n_kv_blocks, 100);
    assert_int_equal(plan.max_model_len, 99 * 16);
    assert_true(plan.shrunk_pool && plan.shrunk_model_len);

    options.memory_utilization = 0.5; /* of twice as much */
    options.memory_limit *= 2;
    assert_int_equal(plan_of(&options).n_kv_blocks, 100);
    options.memory_limit = 1024 * (size_t)MIB;
    assert_false(plan_of(&options).shrunk_pool);
}

static void replicas_share_weights_and_nothing_else(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.max_num_batched_tokens = 64;
    options.max_num_seqs = 4;
    options.tp = 2;
    struct qd_instance_plan one = plan_of(&options);
    options.dp = 3;
    options.memory_limit = one.weight_bytes + 3 * one.activation_bytes + 3 * 50 * MICRO_PAGE_BYTES;
    struct qd_instance_plan three = plan_of(&options);
    assert_int_equal(three.weight_bytes, one.weight_bytes);
    assert_int_equal(three.activation_bytes, 3 * one.activation_bytes);
    assert_int_equal(one.activation_bytes, 2 * one.need.activation_bytes + one.working_bytes);
    assert_true(one.working_bytes > 0);
    assert_int_equal(three.n_kv_blocks, 50);
    assert_int_equal(three.kv_bytes, 3 * 50 * MICRO_PAGE_BYTES);
}

static void what_cannot_shrink_is_refused_with_the_sum(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.max_num_batched_tokens = 64;
    options.max_num_seqs = 4;
    size_t fixed = fixed_bytes(&options);
    char expected[QD_ERR_LEN];

    options.memory_limit = fixed - 1;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "micro does not fit: weights 0.004 GiB + activations ");
    options.memory_limit = fixed; /* the fixed parts fit, but no page */
    refuse(&options, QD_ERR_DOES_NOT_FIT, "KV page");
    options.memory_limit = fixed + 2 * MICRO_PAGE_BYTES - 1;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "KV page");
    options.memory_limit = fixed + 2 * MICRO_PAGE_BYTES;
    assert_int_equal(plan_of(&options).max_model_len, 16);

    options.memory_limit = fixed + 600 * MICRO_PAGE_BYTES;
    options.n_kv_blocks = 6000;
    options.dp = 1;
    snprintf(expected, sizeof expected, "the KV pool does not fit: weights %.3f GiB + activations %.3f GiB + KV pages "
             "%.3f GiB = %.3f GiB > %.3f GiB (--memory-limit %.3f GiB x utilization 1.00)",
             gib(MICRO_WEIGHT_BYTES), gib(fixed - MICRO_WEIGHT_BYTES), gib(6000UL * MICRO_PAGE_BYTES),
             gib(fixed + 6000UL * MICRO_PAGE_BYTES), gib(options.memory_limit), gib(options.memory_limit));
    refuse(&options, QD_ERR_DOES_NOT_FIT, expected);
    options.n_kv_blocks = 0;
    options.memory_limit = fixed + 100 * MICRO_PAGE_BYTES;
    options.max_model_len = 99 * 16;
    assert_int_equal(plan_of(&options).n_kv_blocks, 100);
    options.max_model_len = 99 * 16 + 1;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "one sequence of max_model_len does not fit");
}

static void numbers_that_make_no_plan(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.max_model_len = MICRO_CONTEXT + 1;
    refuse(&options, QD_ERR_INPUT, "max_model_len 4097 is more than the model's 4096");
    options.max_model_len = 1;
    refuse(&options, QD_ERR_INPUT, "max_model_len 1");

    struct {
        int64_t *field;
        const char *name;
    } numbers[] = {{&options.max_num_batched_tokens, "max_num_batched_tokens"},
                   {&options.max_num_seqs, "max_num_seqs"},
                   {&options.max_model_len, "max_model_len"},
                   {&options.n_kv_blocks, "n_kv_blocks"}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        options = options_of("micro");
        *numbers[i].field = -1;
        refuse(&options, QD_ERR_INPUT, numbers[i].name);
        *numbers[i].field = (int64_t)INT32_MAX + 1; /* not taken modulo 2^32 */
        refuse(&options, QD_ERR_INPUT, numbers[i].name);
    }
    for (int dp = -1; dp <= 0; dp++) {
        options = options_of("micro");
        options.dp = dp;
        refuse(&options, QD_ERR_INPUT, "data parallel size");
    }
    options.dp = INT32_MAX;
    refuse(&options, QD_ERR_INPUT, "data parallel size");
    static const double utilizations[] = {0.0, -0.5, 1.0001, __builtin_nan("")};
    for (size_t i = 0; i < sizeof utilizations / sizeof *utilizations; i++) {
        options = options_of("micro");
        options.memory_utilization = utilizations[i];
        refuse(&options, QD_ERR_INPUT, "utilization");
    }
}

static void models_and_devices_that_do_not_go(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("micro");
    options.load_format = QD_LOAD_AUTO;
    refuse(&options, QD_ERR_INPUT, "micro is a preset, not a folder: it needs --load-format dummy");
    options = options_of("nowhere/at-all");
    refuse(&options, QD_ERR_NOT_FOUND, "nowhere/at-all is no folder");
    options = options_of("tests/base"); /* a folder without config.json */
    refuse(&options, QD_ERR_NOT_FOUND, "config.json");
    options = options_of("micro");
    options.device = "tpu";
    refuse(&options, QD_ERR_UNSUPPORTED, "this build has no device \"tpu\"");
    options = options_of("micro");
    options.cpu_isa = "avx9";
    refuse(&options, QD_ERR_ARGUMENT, "avx9");
    options = options_of("micro");
    options.tp = 3;
    refuse(&options, QD_ERR_UNSUPPORTED, "8 attention heads do not divide by TP 3");
    options.tp = 0;
    refuse(&options, QD_ERR_ARGUMENT, "tensor parallel size 0");
    options.tp = 16;
    refuse(&options, QD_ERR_ARGUMENT, "tensor parallel size 16");
}

static void presets_of_published_size(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("8B");
    options.memory_limit = (size_t)8192 * MIB;
    options.memory_utilization = 0.9;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "Qwen3-8B does not fit: weights 15.256 GiB + activations ");
    struct qd_memory_limit memory = qd_memory_available(options.memory_limit);
    if (memory.source != QD_MEMORY_OPTION) SKIP("less than 8 GiB is available here");
    refuse(&options, QD_ERR_DOES_NOT_FIT, "> 7.200 GiB (--memory-limit 8.000 GiB x utilization 0.90)");

    options.model = "0.6B";
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.weight_bytes, 2 * (440467456L + 155582464L));
    assert_int_equal(plan.kv_block_bytes, 16 * 114688);
    assert_true(plan.shrunk_pool);
    assert_int_equal(plan.max_model_len, 40960);
    size_t rest = plan.usable_bytes - plan.weight_bytes - plan.activation_bytes;
    assert_int_equal(plan.n_kv_blocks, rest / plan.kv_block_bytes);
    assert_true(plan.weight_bytes + plan.activation_bytes + plan.kv_bytes <= plan.usable_bytes);
}

static void a_device_that_does_not_execute_needs_no_memory(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("32B");
    options.device = "null";
    options.load_format = QD_LOAD_AUTO; /* nothing is read */
    options.memory_limit = 64 * MIB;
    options.tp = 8;
    options.dp = 2;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.weight_bytes + plan.activation_bytes, 0);
    assert_int_equal(plan.max_model_len, 40960);
    assert_int_equal(plan.n_kv_blocks, 128 * 2560 + 1);
    assert_false(plan.shrunk_pool);
    /* but the lists of its pages are real */
    options.n_kv_blocks = INT32_MAX;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "the KV pool");
    options.n_kv_blocks = 0;
    options.max_num_seqs = options.max_num_batched_tokens = 65536;
    plan = plan_of(&options);
    assert_true(plan.shrunk_pool);
    assert_in_range(plan.n_kv_blocks, 1 << 20, 4 << 20);
}

/* A GPU is a rank's own unless it is told otherwise; the error names the way out. */
static void gpus_are_shared_when_asked(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_instance_plan plan;
    struct qd_instance_options options = options_of("micro");
    options.device = "emu"; /* 8 GPUs */
    options.tp = 8;
    ASSERT_OK(qd_instance_plan_make(&options, &plan, err, sizeof err), err);
    options.dp = 2;
    assert_int_equal(qd_instance_plan_make(&options, &plan, err, sizeof err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "16 ranks need 16 GPUs, there are 8: fewer ranks, or --ranks-per-gpu 2");
    options.ranks_per_gpu = 2;
    ASSERT_OK(qd_instance_plan_make(&options, &plan, err, sizeof err), err);
    assert_int_equal(plan.n_sharing, 16); /* of the host's memory, which emulated GPUs have */
    assert_int_equal(qd_instance_device(&options, &plan, 1).ranks_per_gpu, 2);
}

/* Resident bytes of this process. */
static size_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &total, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Pools are mapped, not backed: an idle instance with a pool of 1 GiB uses little of it, and eight ranks with
 * small buffers do not round each of them up to a huge page. */
static void memory_is_backed_when_it_is_used(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options options = options_of("micro");
    options.tp = 8;
    options.n_threads = 8;
    qd_instance_t *instance;
    size_t before = resident_bytes();
    ASSERT_OK(qd_instance_open(&options, &instance, err, sizeof err), err);
    const struct qd_instance_plan *plan = qd_instance_get_plan(instance);
    assert_true(plan->kv_bytes > (size_t)1024 * MIB);

    int32_t prompt[40];
    uint64_t id;
    for (int i = 0; i < 40; i++) prompt[i] = i;
    struct qd_request request = {.prompt = prompt, .n_prompt = 40, .max_tokens = 4, .top_p = 1.0f};
    ASSERT_OK(qd_engine_submit(qd_instance_engine(instance), &request, &id, err, sizeof err), err);
    struct qd_event event = {0};
    while (event.finish == QD_FINISH_NONE)
        assert_int_equal(qd_engine_poll_events(qd_instance_engine(instance), &event, 1, INT64_C(30000000000)), 1);
    size_t used = resident_bytes() - before, planned = plan->weight_bytes + plan->activation_bytes;
    printf("planned %zu MiB without pages, resident %zu MiB\n", planned / MIB, used / MIB);
    /* pages of 8 ranks x 2 layers x K and V, each backed by 2 MiB; thread stacks and tables */
    assert_true(used <= planned + 8 * 2 * 2 * 2 * (size_t)MIB + 64 * (size_t)MIB);
    qd_instance_close(instance);
}

static void opening_fails_cleanly(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_instance_t *instance = (qd_instance_t *)(uintptr_t)1;
    struct qd_instance_options options = options_of("micro");
    options.dp = 0;
    assert_int_equal(qd_instance_open(&options, &instance, err, sizeof err), QD_ERR_INPUT);
    assert_null(instance);
    options.dp = 2;
    options.max_requests = 0; /* the engine is the last to open */
    assert_int_equal(qd_instance_open(&options, &instance, err, sizeof err), QD_ERR_ARGUMENT);
    assert_null(instance);
    qd_instance_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_design),
        cmocka_unit_test(budget_and_sequences),
        cmocka_unit_test(a_pool_of_a_given_size),
        cmocka_unit_test(the_pool_shrinks_to_the_memory),
        cmocka_unit_test(replicas_share_weights_and_nothing_else),
        cmocka_unit_test(what_cannot_shrink_is_refused_with_the_sum),
        cmocka_unit_test(numbers_that_make_no_plan),
        cmocka_unit_test(models_and_devices_that_do_not_go),
        cmocka_unit_test(presets_of_published_size),
        cmocka_unit_test(a_device_that_does_not_execute_needs_no_memory),
        cmocka_unit_test(gpus_are_shared_when_asked),
        cmocka_unit_test(memory_is_backed_when_it_is_used),
        cmocka_unit_test(opening_fails_cleanly),
    };
    return cmocka_run_group_tests_name("instance", tests, NULL, NULL);
}
