/* Variants: the product of the further axes as texts, found again, ordered by size, checked before they are
 * used. */
#include "tests/support/test.h"

#include "harness/result/variant.h"
#include "models/json.h"

/* Two axes whose labels and values contain dashes and begin alike. */
#define TWO_AXES                                                                                             \
    "[{\"option\": \"null-step-us\", \"label\": \"null-step-us\", \"values\": [\"1\", \"1e-3\", \"10\"]}, "  \
    "{\"option\": \"random-input-len\", \"label\": \"input-len\", \"values\": [\"8\", \"128\"]}]"

static qd_status parse(const char *text, struct qd_axes *axes, char *err)
{
    cJSON *array = NULL;
    ASSERT_OK(qd_json_parse(text, strlen(text), NULL, &array, err, QD_ERR_LEN), err);
    qd_status status = qd_axes_from_json(array, axes, err, QD_ERR_LEN);
    cJSON_Delete(array);
    return status;
}

static void variants_are_the_product_of_the_axes(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "null-step-us=1-input-len=8",      "null-step-us=1-input-len=128", "null-step-us=1e-3-input-len=8",
        "null-step-us=1e-3-input-len=128", "null-step-us=10-input-len=8",  "null-step-us=10-input-len=128",
    };
    char err[QD_ERR_LEN] = "", variant[QD_VARIANT_LEN];
    struct qd_axes axes;
    ASSERT_OK(parse(TWO_AXES, &axes, err), err);
    assert_int_equal(qd_axes_count(&axes), 6);
    for (size_t i = 0; i < 6; i++) {
        size_t index[QD_MAX_AXES];
        qd_axes_variant(&axes, i, variant);
        assert_string_equal(variant, expected[i]);
        assert_true(qd_axes_find(&axes, variant, index));
        assert_int_equal(index[0], i / 2);
        assert_int_equal(index[1], i % 2);
    }
    qd_axes_free(&axes);
}

static void no_axes_have_one_variant(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", variant[QD_VARIANT_LEN] = "x";
    size_t index[QD_MAX_AXES];
    struct qd_axes axes;
    ASSERT_OK(qd_axes_from_json(NULL, &axes, err, sizeof err), err);
    assert_int_equal(qd_axes_count(&axes), 1);
    qd_axes_variant(&axes, 0, variant);
    assert_string_equal(variant, "");
    assert_true(qd_axes_find(&axes, "", index));
    assert_false(qd_axes_find(&axes, "a=1", index));
    qd_axes_free(&axes);
}

static void foreign_variants_are_not_found(void **state)
{
    (void)state;
    static const char *const foreign[] = {
        "",
        "null-step-us=1",
        "null-step-us=1-",
        "null-step-us=2-input-len=8",
        "input-len=8-null-step-us=1",
        "null-step-us=1-input-len=8-a=1",
        "null-step-us=1-input-len=80",
        "null-step-us=1-input-len=",
    };
    char err[QD_ERR_LEN] = "";
    size_t index[QD_MAX_AXES];
    struct qd_axes axes;
    ASSERT_OK(parse(TWO_AXES, &axes, err), err);
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        if (qd_axes_find(&axes, foreign[i], index)) fail_msg("\"%s\" is found", foreign[i]);
    qd_axes_free(&axes);
}

static void axes_are_written_as_they_are_read(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_axes axes;
    cJSON *expected = NULL;
    ASSERT_OK(parse(TWO_AXES, &axes, err), err);
    ASSERT_OK(qd_json_parse(TWO_AXES, strlen(TWO_AXES), NULL, &expected, err, sizeof err), err);
    cJSON *written = qd_axes_to_json(&axes);
    assert_true(cJSON_Compare(written, expected, true));
    cJSON_Delete(written);
    cJSON_Delete(expected);
    qd_axes_free(&axes);
}

static void broken_axes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"{}", "axes: is not an array"},
        {"[1]", "axes: option: missing"},
        {"[{\"option\": \"a\"}]", "axes: label: missing"},
        {"[{\"option\": \"\", \"label\": \"a\"}]", "axes: option: \"\" is empty"},
        {"[{\"option\": \"a b\", \"label\": \"a\"}]", "axes: option: \"a b\" holds something other"},
        {"[{\"option\": \"a\", \"label\": \"a\"}]", "axes: values: is not a list"},
        {"[{\"option\": \"a\", \"label\": \"a\", \"values\": []}]", "axes: values: is not a list"},
        {"[{\"option\": \"a\", \"label\": \"a\", \"values\": [1]}]",
         "axes: values: holds something that is not text"},
        {"[{\"option\": \"a\", \"label\": \"a\", \"values\": [\"\"]}]", "axes: empty or overlong value"},
        {"[{\"option\": \"a\", \"label\": \"a\", \"values\": [\"1\", \"1\"]}]",
         "axes: value 1 appears twice"},
        {"[{\"option\": \"a\", \"label\": \"a\", \"values\": [\"a/b\"]}]",
         "axes: values: \"a/b\" holds something"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "";
        struct qd_axes axes;
        assert_int_equal(parse(cases[i].text, &axes, err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, cases[i].reason);
        assert_int_equal(axes.n, 0);
    }
}

/* n axes of n_values values each, with labels of `label_len` letters. */
static qd_status parse_many(int n, int n_values, int label_len, char *err)
{
    char *text = NULL;
    size_t len;
    struct qd_axes axes;
    FILE *out = open_memstream(&text, &len);
    for (int a = 0; a < n; a++) {
        fprintf(out, "%s{\"option\": \"a\", \"label\": \"%.*s\", \"values\": [", a > 0 ? ", " : "[",
                label_len, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz");
        for (int v = 0; v < n_values; v++) fprintf(out, "%s\"%d\"", v > 0 ? ", " : "", v);
        fputs("]}", out);
    }
    fputs("]", out);
    fclose(out);
    qd_status status = parse(text, &axes, err);
    qd_axes_free(&axes);
    free(text);
    return status;
}

static void too_many_axes_and_variants(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(parse_many(16, 1, 1, err), err);
    assert_int_equal(parse_many(17, 1, 1, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "axes: more than 16 axes");
    ASSERT_OK(parse_many(4, 10, 1, err), err);
    assert_int_equal(parse_many(5, 10, 1, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "axes: more than 10000 variants");
    ASSERT_OK(parse_many(16, 1, 13, err), err); /* 16 x "abc...=0-" of 16 bytes is 256 with the end */
    assert_int_equal(parse_many(16, 1, 14, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "names of more than 255 bytes");
    assert_int_equal(parse_many(1, 1001, 1, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "axes: more than 1000 values");
    assert_int_equal(parse_many(1, 1, 48, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "is empty or too long");
}

static void texts_are_checked(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", text[QD_VARIANT_LEN + 1];
    ASSERT_OK(qd_variant_check("name", "", err, sizeof err), err);
    ASSERT_OK(qd_variant_check("name", "a-b=1.5e+3-c_d=2", err, sizeof err), err);
    static const char *const bad[] = {"a b", "a\nb", "a|b", "a/b", "\xc3\xa9", "a,b", "\"a\"", "#a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qd_variant_check("name", bad[i], err, sizeof err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, "name: ");
    }
    memset(text, 'a', sizeof text - 1);
    text[QD_VARIANT_LEN] = '\0';
    assert_int_equal(qd_variant_check("name", text, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "longer than 255 bytes");
    text[QD_VARIANT_LEN - 1] = '\0';
    ASSERT_OK(qd_variant_check("name", text, err, sizeof err), err);
}

/* Every pair of a list in the wanted order, both ways round. */
static void variants_stand_by_size(void **state)
{
    (void)state;
    static const char *const sorted[] = {
        "",      "a-b=1", "a=",      "a=-",      "a=0.25",    "a=0.5",  "a=1",
        "a=1.0", "a=1-b", "a=1-b=2", "a=1-b=10", "a=1-c=1",   "a=2",    "a=2Mi",
        "a=16",  "a=1e3", "a=2048",  "a=2K",     "a=64k-b=1", "a=512M", "a=1.5GiB-b=1",
        "a=3gB", "a=1T",  "a=1e999", "a=x",      "b10=1",     "b1=1",   "b=1",
    };
    size_t n = sizeof sorted / sizeof sorted[0];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            int order = qd_variant_compare(sorted[i], sorted[j]);
            if ((order > 0) - (order < 0) != (i > j) - (i < j))
                fail_msg("\"%s\" against \"%s\": %d", sorted[i], sorted[j], order);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variants_are_the_product_of_the_axes),
        cmocka_unit_test(no_axes_have_one_variant),
        cmocka_unit_test(foreign_variants_are_not_found),
        cmocka_unit_test(axes_are_written_as_they_are_read),
        cmocka_unit_test(broken_axes),
        cmocka_unit_test(too_many_axes_and_variants),
        cmocka_unit_test(texts_are_checked),
        cmocka_unit_test(variants_stand_by_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
