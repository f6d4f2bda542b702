/* The header of one safetensors file: what is read from it, and every way it can be wrong. */
#include "tests/support/test.h"

#include "models/safetensors.h"

/* Parses a header that describes n_data_bytes of data. */
static qd_status parse(const char *json, uint64_t n_data_bytes, struct qd_tensor_list *list, char *err)
{
    /* A copy of exact size lets the address sanitizer see any read beyond the text. */
    size_t n = strlen(json);
    char *exact = malloc(n + 1);
    assert_non_null(exact);
    memcpy(exact, json, n + 1);
    *list = (struct qd_tensor_list){0};
    qd_status status = qd_safetensors_parse_header(exact, n, QD_SAFETENSORS_PREFIX + n + n_data_bytes, "FILE",
                                                   3, list, err, QD_ERR_LEN);
    free(exact);
    return status;
}

static void refuse(const char *json, uint64_t n_data_bytes, qd_status expected, const char *why)
{
    struct qd_tensor_list list;
    char err[QD_ERR_LEN] = "";
    qd_status status = parse(json, n_data_bytes, &list, err);
    qd_tensor_list_free(&list);
    if (status != expected) fail_msg("%s: %s: %s", json, qd_status_name(status), err);
    ASSERT_CONTAINS(err, "FILE: ");
    ASSERT_CONTAINS(err, why);
}

static void test_reads_tensors(void **state)
{
    (void)state;
    static const char json[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                               "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28],\"more\":1},"
                               "\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]},"
                               "\"c\":{\"dtype\":\"F16\",\"shape\":[5,0],\"data_offsets\":[3,3]}}   ";
    struct qd_tensor_list list;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(parse(json, 28, &list, err), err);
    assert_int_equal(list.n, 3);
    qd_tensor_list_sort(&list);
    const struct qd_tensor *a = qd_tensor_list_find(&list, "a"), *b = qd_tensor_list_find(&list, "b");
    assert_int_equal(a->dtype, QD_DTYPE_BF16);
    assert_int_equal(a->n_dims, 0);
    assert_int_equal(a->n_bytes, 2);
    assert_int_equal(b->dtype, QD_DTYPE_F32);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dims[0], 2);
    assert_int_equal(b->dims[1], 3);
    assert_int_equal(b->n_bytes, 24);
    assert_int_equal(b->begin, QD_SAFETENSORS_PREFIX + sizeof json - 1 + 4);
    assert_int_equal(b->file, 3);
    assert_int_equal(qd_tensor_list_find(&list, "c")->n_bytes, 0);
    assert_null(qd_tensor_list_find(&list, "d"));
    qd_tensor_list_free(&list);
    ASSERT_OK(parse("{}", 0, &list, err), err);
    assert_int_equal(list.n, 0);
    assert_null(qd_tensor_list_find(&list, "a"));
    qd_tensor_list_sort(&list);
    qd_tensor_list_free(&list);
}

#define T(dtype, shape, offsets)                                                                             \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_refuses_wrong_json(void **state)
{
    (void)state;
    refuse("", 0, QD_ERR_INPUT, "header");
    refuse("[]", 0, QD_ERR_INPUT, "not a JSON object");
    refuse("{\"t\":1}", 0, QD_ERR_INPUT, "t: not described");
    refuse("{\"__metadata__\":1}", 0, QD_ERR_INPUT, "__metadata__");
    refuse("{\"t\":{\"x\":[[[[[[[[1]]]]]]]]}}", 0, QD_ERR_INPUT, "header");
    refuse("{\"t\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]},"
           "\"t\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
           4, QD_ERR_INPUT, "duplicate");
    refuse("{\"\":{}}", 0, QD_ERR_INPUT, "its name");
    refuse("{\"a\\u0000b\":{}}", 0, QD_ERR_INPUT, "its name");
    refuse("{\"a\\u001bb\":{}}", 0, QD_ERR_INPUT, "its name");
}

static void test_refuses_wrong_tensors(void **state)
{
    (void)state;
    refuse("{\"t\":{\"shape\":[1],\"data_offsets\":[0,2]}}", 2, QD_ERR_INPUT, "t: has no dtype");
    refuse("{\"t\":{\"dtype\":\"BF16\",\"data_offsets\":[0,2]}}", 2, QD_ERR_INPUT, "t: has no shape");
    refuse("{\"t\":{\"dtype\":\"BF16\",\"shape\":[1]}}", 2, QD_ERR_INPUT, "t: data_offsets");
    refuse(T("F8_E4M3", "[2]", "[0,2]"), 2, QD_ERR_UNSUPPORTED, "t: dtype F8_E4M3");
    refuse(T("I64", "[1]", "[0,8]"), 8, QD_ERR_UNSUPPORTED, "t: dtype I64");
    refuse(T("BF16", "[-1]", "[0,2]"), 2, QD_ERR_INPUT, "t: shape");
    refuse(T("BF16", "[1.5]", "[0,3]"), 3, QD_ERR_INPUT, "t: shape");
    refuse(T("BF16", "[\"1\"]", "[0,2]"), 2, QD_ERR_INPUT, "t: shape");
    refuse(T("BF16", "[1,1,1,1,1,1,1,1,1]", "[0,2]"), 2, QD_ERR_INPUT, "t: more than 8");
    refuse(T("BF16", "[4294967296,4294967296]", "[0,0]"), 0, QD_ERR_INPUT, "t: the product of its shape");
    refuse(T("BF16", "[9007199254740992,4096]", "[0,0]"), 0, QD_ERR_INPUT, "t: the product of its shape");
    refuse(T("BF16", "[1]", "[0]"), 2, QD_ERR_INPUT, "t: data_offsets");
    refuse(T("BF16", "[1]", "[0,2,4]"), 2, QD_ERR_INPUT, "t: data_offsets");
    refuse(T("BF16", "[1]", "[2,0]"), 2, QD_ERR_INPUT, "t: data_offsets");
    refuse(T("BF16", "[1]", "[-2,0]"), 2, QD_ERR_INPUT, "t: data_offsets");
    refuse(T("BF16", "[1]", "[0,4]"), 4, QD_ERR_INPUT, "t: data_offsets span 4 bytes, its shape takes 2");
    refuse(T("BF16", "[1]", "[1,3]"), 2, QD_ERR_INPUT, "t: ends at byte 3 of 2");
    refuse(T("BF16", "[1]", "[9007199254740990,9007199254740992]"), 2, QD_ERR_INPUT, "t: ends at byte");
    refuse("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[2,6]},"
           "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}",
           6, QD_ERR_INPUT, "a: overlaps b");
}

static void test_header_length(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    size_t n;
    const unsigned char ten[] = {10, 0, 0, 0, 0, 0, 0, 0}, large[] = {1, 0, 0, 1, 0, 0, 0, 0};
    const unsigned char huge[] = {255, 255, 255, 255, 255, 255, 255, 255};
    ASSERT_OK(qd_safetensors_header_bytes(ten, 18, "FILE", &n, err, sizeof err), err);
    assert_int_equal(n, 10);
    assert_int_equal(qd_safetensors_header_bytes(ten, 17, "FILE", &n, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "FILE: header of 10 bytes in a file of 17");
    assert_int_equal(qd_safetensors_header_bytes(ten, 3, "FILE", &n, err, sizeof err), QD_ERR_INPUT);
    assert_int_equal(qd_safetensors_header_bytes(huge, UINT64_MAX, "FILE", &n, err, sizeof err),
                     QD_ERR_INPUT);
    assert_int_equal(qd_safetensors_header_bytes(large, 1 << 30, "FILE", &n, err, sizeof err),
                     QD_ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_tensors),
        cmocka_unit_test(test_refuses_wrong_json),
        cmocka_unit_test(test_refuses_wrong_tensors),
        cmocka_unit_test(test_header_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
