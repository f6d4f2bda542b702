/* The plan on devices with memory of their own, without any: vLLM's defaults by that memory, and what is held
 * against which GPU. */
#include "harness/engine/instance.h"
#include "kernels/base/size.h"
#include "tests/support/fake_store.h"
#include "tests/support/test.h"

static const size_t MIB = 1 << 20, GIB = 1 << 30;

static struct qd_instance_options options_of(const char *preset)
{
    return (struct qd_instance_options){.model = preset,
                                        .load_format = QD_LOAD_DUMMY,
                                        .ops = &fake_store_ops,
                                        .tp = 1,
                                        .dp = 1,
                                        .memory_utilization = 0.9,
                                        .max_requests = 16};
}

static struct qd_instance_plan plan_of(const struct qd_instance_options *options)
{
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_instance_plan_make(options, &plan, err, sizeof err), err);
    return plan;
}

static void refuse(const struct qd_instance_options *options, const char *reason)
{
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_instance_plan_make(options, &plan, err, sizeof err), QD_ERR_DOES_NOT_FIT);
    ASSERT_CONTAINS(err, reason);
}

static void set_gpu(int gpu, double total_gib, double free_gib, const char *name)
{
    struct qd_device_memory *memory = &fake_stores.memory[gpu];
    memory->total_bytes = (size_t)(total_gib * (double)GIB);
    memory->free_bytes = (size_t)(free_gib * (double)GIB);
    snprintf(memory->name, sizeof memory->name, "%s", name);
}

/* vllm-facts: the table by device memory, API server. */
static void defaults_are_vllms_by_memory(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double gib;
        int budget, seqs;
    } gpus[] = {{"NVIDIA B200", 179, 16384, 1024},
                {"one of 160", 160, 16384, 1024},
                {"NVIDIA H200", 139.8, 8192, 1024},
                {"NVIDIA H100 80GB HBM3", 79.1, 8192, 1024},
                {"one of 70", 70, 8192, 1024},
                {"NVIDIA A100-SXM4-80GB", 79.2, 2048, 256},
                {"NVIDIA A100-SXM4-40GB", 39.4, 2048, 256},
                {"NVIDIA L40S", 44.4, 2048, 256},
                {"almost 70", 69.99, 2048, 256},
                {"NVIDIA GeForce RTX 4090", 23.6, 2048, 256}};
    struct qd_instance_options options = options_of("0.6B");
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++) {
        fake_stores_reset(1);
        set_gpu(0, gpus[i].gib, gpus[i].gib, gpus[i].name);
        struct qd_instance_plan plan = plan_of(&options);
        assert_int_equal(plan.limits.max_tokens, gpus[i].budget);
        assert_int_equal(plan.limits.max_seqs, gpus[i].seqs);
        assert_false(plan.lowered_seqs);
    }
    fake_stores_reset(2);
    set_gpu(1, 24, 24, "smaller");
    assert_int_equal(plan_of(&options).limits.max_tokens, 8192); /* not in use */
    options.dp = 2;
    assert_int_equal(plan_of(&options).limits.max_tokens, 2048);
    options.max_num_batched_tokens = 4096;
    options.max_num_seqs = 8;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.limits.max_tokens, 4096);
    assert_int_equal(plan.limits.max_seqs, 8);
}

/* usable = total x utilization, and everything named comes off it; pages are the rest. */
static void pages_are_what_the_named_terms_leave(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("8B");
    options.tp = 2;
    fake_stores_reset(2);
    set_gpu(0, 24, 23.5, "a");
    set_gpu(1, 24, 22.5, "b"); /* the fullest: others have 1.5 GiB of it */
    fake_stores.working_bytes = 100 * MIB;
    fake_stores.graph_bytes = 200 * MIB;
    fake_stores.collective_bytes = 300 * MIB;
    struct qd_instance_plan plan = plan_of(&options);
    assert_int_equal(plan.gpu, 1);
    assert_int_equal(plan.n_sharing, 1);
    assert_int_equal(plan.memory.source, QD_MEMORY_DEVICE);
    assert_int_equal(plan.memory.bytes, 24 * GIB);
    assert_int_equal(plan.usable_bytes, (size_t)(24 * (double)GIB * 0.9));
    assert_int_equal(plan.taken_bytes, 3 * GIB / 2);
    assert_int_equal(plan.graph_bytes, 200 * MIB);
    assert_int_equal(plan.collective_bytes, 300 * MIB);
    assert_int_equal(plan.weight_bytes, plan.need.weight_bytes + plan.need.embedding_bytes);
    assert_int_equal(plan.activation_bytes, plan.need.activation_bytes + 100 * MIB);
    size_t fixed = plan.weight_bytes + plan.activation_bytes + 2 * GIB; /* 1.5 GiB and 500 MiB, nearly */
    size_t page = plan.kv_block_bytes / 2, rest = plan.usable_bytes - (fixed - 12 * MIB);
    assert_int_equal(plan.n_kv_blocks, rest / page);
    assert_true(plan.shrunk_pool);
    assert_true(qd_instance_plan_needed(&plan) <= plan.usable_bytes);
    /* What is taken in the end is no more than was free. */
    assert_true(qd_instance_plan_needed(&plan) - plan.taken_bytes <= fake_stores.memory[1].free_bytes);
    options.enforce_eager = true;
    assert_int_equal(plan_of(&options).graph_bytes, 0);
}

/* Of the fullest GPU, as it is when all is open. */
static void what_is_in_use_stands_beside_the_plan(void **state)
{
    (void)state;
    char text[QD_ERR_LEN];
    struct qd_instance_options options = options_of("0.6B");
    options.tp = 2;
    options.n_kv_blocks = 1024;
    fake_stores_reset(2);
    set_gpu(0, 24, 23.5, "a");
    set_gpu(1, 24, 22.5, "b");
    fake_stores.graph_bytes = 512 * MIB;
    fake_stores.collective_bytes = 256 * MIB;
    struct qd_instance_plan plan = plan_of(&options);
    size_t own = plan.weight_bytes + plan.activation_bytes + plan.kv_bytes;
    fake_stores.memory[1].free_bytes -= own + 640 * MIB; /* 128 MiB less than planned */
    qd_instance_plan_describe_use(&options, &plan, text, sizeof text);
    char want[QD_ERR_LEN];
    double planned = (double)qd_instance_plan_needed(&plan) / (double)GIB;
    snprintf(want, sizeof want,
             "GPU 1: %.3f GiB in use, %.3f planned; of it beside weights, activations, KV pages and what was "
             "taken before 0.625, planned 0.750 (graphs 0.500, collectives 0.250)",
             planned - 0.125, planned);
    assert_string_equal(text, want);
    options.memory_limit = 12 * GIB; /* then the plan is of no GPU's memory */
    plan = plan_of(&options);
    qd_instance_plan_describe_use(&options, &plan, text, sizeof text);
    assert_string_equal(text, "");
}

static void what_does_not_fit_names_the_gpu_and_every_term(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("8B");
    options.dp = 2;
    options.max_num_batched_tokens = 64;
    options.max_num_seqs = 4;
    fake_stores_reset(2);
    set_gpu(0, 24, 24, "a");
    set_gpu(1, 16, 15.5, "b");
    fake_stores.graph_bytes = 256 * MIB;
    fake_stores.working_bytes = 1;
    refuse(&options,
           "Qwen3-8B does not fit: weights 15.256 GiB + activations 0.007 GiB + KV pages 0.000 GiB + "
           "graphs 0.250 GiB + collectives 0.000 GiB + taken before 0.500 GiB (CUDA's context, other "
           "processes) = 16.014 GiB > 14.400 GiB (GPU 1: device memory 16.000 GiB x utilization 0.90)");
    set_gpu(1, 24, 24, "b");
    options.n_kv_blocks = 4000;
    refuse(&options, "the KV pool does not fit: ");
    options.n_kv_blocks = 0;
    options.max_model_len = 40960;
    set_gpu(0, 20, 19.5, "a");
    refuse(&options, "one sequence of max_model_len does not fit: ");
    /* A limit is about this process alone. */
    options.max_model_len = 0;
    options.memory_limit = 12 * GIB;
    refuse(&options,
           "taken before 0.000 GiB (CUDA's context, other processes) = 15.514 GiB > 10.800 GiB (GPU 0: "
           "--memory-limit 12.000 GiB x utilization 0.90)");
}

/* One store for each rank of a replica that has one on the GPU; all else is a rank's own. */
static void replicas_on_a_gpu_share_weights(void **state)
{
    (void)state;
    static const struct {
        int n_devices, ranks_per_gpu, tp, dp, n_sharing, n_stores;
    } cases[] = {{1, 0, 1, 1, 1, 1}, {1, 3, 1, 3, 3, 1}, {1, 4, 1, 3, 3, 1},
                 {2, 3, 2, 3, 3, 2}, {3, 2, 2, 3, 2, 2}, {8, 1, 4, 2, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qd_instance_options options = options_of("0.6B");
        options.tp = cases[i].tp;
        options.dp = cases[i].dp;
        options.ranks_per_gpu = cases[i].ranks_per_gpu;
        fake_stores_reset(cases[i].n_devices);
        fake_stores.graph_bytes = MIB;
        struct qd_instance_plan plan = plan_of(&options);
        assert_int_equal(plan.n_sharing, cases[i].n_sharing);
        size_t of_rank = plan.need.weight_bytes + plan.need.embedding_bytes;
        assert_int_equal(plan.weight_bytes, (size_t)cases[i].n_stores * of_rank);
        assert_int_equal(plan.activation_bytes, (size_t)cases[i].n_sharing * plan.need.activation_bytes);
        assert_int_equal(plan.graph_bytes, (size_t)cases[i].n_sharing * MIB);
        assert_int_equal(fake_stores.max_asked + 1, cases[i].n_devices);
    }
}

/* Logits on the host, and gathered ones, are for those who want them. */
static void logits_take_memory_where_they_are_wanted(void **state)
{
    (void)state;
    struct qd_instance_options options = options_of("0.6B");
    fake_stores_reset(2);
    options.tp = 2;
    struct qd_instance_plan without = plan_of(&options);
    options.max_logit_rows = 1;
    struct qd_instance_plan with = plan_of(&options);
    assert_int_equal(with.limits.max_logit_rows, 1024);
    assert_int_equal(with.activation_bytes - without.activation_bytes,
                     (size_t)1024 * 4 * 2 * 64 * (size_t)qd_div_up(151936, 128));
}

/* What can be told without a device is told without: a sweep's parent opens none. */
static void checking_asks_no_device(void **state)
{
    (void)state;
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options options = options_of("8B");
    fake_stores_reset(1);
    set_gpu(0, 1, 1, "tiny");
    ASSERT_OK(qd_instance_plan_check(&options, &plan, err, sizeof err), err);
    assert_int_equal(plan.config.n_layers, 36);
    assert_int_equal(fake_stores.max_asked, -1);
    options.tp = 3;
    assert_int_equal(qd_instance_plan_check(&options, &plan, err, sizeof err), QD_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_vllms_by_memory),
        cmocka_unit_test(what_is_in_use_stands_beside_the_plan),
        cmocka_unit_test(pages_are_what_the_named_terms_leave),
        cmocka_unit_test(what_does_not_fit_names_the_gpu_and_every_term),
        cmocka_unit_test(replicas_on_a_gpu_share_weights),
        cmocka_unit_test(logits_take_memory_where_they_are_wanted),
        cmocka_unit_test(checking_asks_no_device),
    };
    return cmocka_run_group_tests_name("instance_device", tests, NULL, NULL);
}
