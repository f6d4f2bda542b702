#include "tests/support/test.h"

#include <limits.h>
#include <sys/stat.h>

#include "kernels/library.h"
#include "tests/support/fakes.h"
#include "tests/support/files.h"

struct functions {
    int (*answer)(void);
};

static const struct qd_library_symbol symbols[] = {{"qd_fake_answer", offsetof(struct functions, answer)}};

/* Not where the loader looks; so only the folder of the test decides. */
static const struct qd_library elsewhere = {
    "Fake", {"libqdyno_elsewhere.so.2", "libqdyno_elsewhere.so.1"}, "nothing"};

static const char *const variables[] = {"CUDA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "HOME", "PATH"};
enum { N_VARIABLES = sizeof variables / sizeof variables[0] };

static struct temp_dir dir;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_create();
    for (int i = 0; i < N_VARIABLES; i++) unsetenv(variables[i]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

/* Makes the folders of dir/path, and the file. */
static void put(const char *path, const void *data, size_t n_bytes)
{
    char whole[PATH_MAX];
    snprintf(whole, sizeof whole, "%s", in_dir(&dir, path));
    for (char *slash = strchr(whole + strlen(dir.path) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0755);
        *slash = '/';
    }
    write_file(whole, data, n_bytes);
}

/* A copy of the fake: not the same file, so that the loader tells both apart. */
static void put_fake(const char *path)
{
    const char *fake = fake_path("libqdyno_fake.so.1");
    struct stat info;
    assert_int_equal(stat(fake, &info), 0);
    char *data = read_text(fake);
    put(path, data, (size_t)info.st_size);
    free(data);
}

static qd_status open_elsewhere(char path[PATH_MAX], char err[QD_ERR_LEN])
{
    struct functions functions = {0};
    err[0] = '\0';
    qd_status st = qd_library_open(&elsewhere, symbols, 1, &functions, path, PATH_MAX, err, QD_ERR_LEN);
    if (st != QD_OK) return st;
    assert_int_equal(functions.answer(), 42);
    return QD_OK;
}

static void the_loader_is_asked_first(void **state)
{
    (void)state;
    static const struct qd_library fake = {"Fake", {"libqdyno_fake.so.1"}, "nothing"};
    struct functions functions = {0};
    char path[PATH_MAX], err[QD_ERR_LEN] = "";
    put_fake("home/lib64/libqdyno_fake.so.1");
    setenv("CUDA_HOME", in_dir(&dir, "home"), 1);
    ASSERT_OK(qd_library_open(&fake, symbols, 1, &functions, path, sizeof path, err, sizeof err), err);
    assert_int_equal(functions.answer(), 42);
    char expected[PATH_MAX];
    assert_non_null(realpath(fake_path("libqdyno_fake.so.1"), expected));
    assert_string_equal(path, expected);
}

/* Each folder once, with nothing elsewhere. */
static void every_place_is_looked_in(void **state)
{
    (void)state;
    static const struct {
        const char *variable, *value, *folder;
    } places[] = {
        {"CUDA_HOME", "a", "a/lib64"},
        {"CUDA_HOME", "b", "b/lib"},
        {"VIRTUAL_ENV", "d", "d/lib/python3.11/site-packages/nvidia/nccl/lib"},
        {"VIRTUAL_ENV", "e", "e/lib64/python3.9/site-packages/nvidia/cu13/lib"},
        {"CONDA_PREFIX", "f", "f/lib/python3.12/site-packages/nvidia/cublas/lib"},
        {"HOME", "g", "g/.local/lib/python3.10/site-packages/nvidia/cublas/lib"},
    };
    char path[PATH_MAX], err[QD_ERR_LEN], expected[PATH_MAX];
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(expected, sizeof expected, "%s/libqdyno_elsewhere.so.1", places[i].folder);
        put_fake(expected);
        assert_int_equal(open_elsewhere(path, err), QD_ERR_NOT_FOUND);
        setenv(places[i].variable, in_dir(&dir, places[i].value), 1);
        ASSERT_OK(open_elsewhere(path, err), err);
        ASSERT_CONTAINS(path, expected);
        unsetenv(places[i].variable);
    }
}

static void a_python_in_path_has_its_packages_looked_in(void **state)
{
    (void)state;
    char path[PATH_MAX], err[QD_ERR_LEN], search[PATH_MAX];
    put_fake("env/lib/python3.11/site-packages/nvidia/nccl/lib/libqdyno_elsewhere.so.1");
    snprintf(search, sizeof search, ":/nonexistent:%s", in_dir(&dir, "env/bin"));
    setenv("PATH", search, 1);
    assert_int_equal(open_elsewhere(path, err), QD_ERR_NOT_FOUND);
    put("env/bin/python3", "", 0);
    assert_int_equal(chmod(in_dir(&dir, "env/bin/python3"), 0755), 0);
    ASSERT_OK(open_elsewhere(path, err), err);
    ASSERT_CONTAINS(path, "env/lib/python3.11/site-packages/nvidia/nccl/lib/");
}

static void the_first_soname_is_preferred(void **state)
{
    (void)state;
    char path[PATH_MAX], err[QD_ERR_LEN];
    put_fake("home/lib64/libqdyno_elsewhere.so.1");
    put_fake("home/lib64/libqdyno_elsewhere.so.2");
    setenv("CUDA_HOME", in_dir(&dir, "home"), 1);
    ASSERT_OK(open_elsewhere(path, err), err);
    ASSERT_CONTAINS(path, "home/lib64/libqdyno_elsewhere.so.2");
}

static void a_missing_library_says_where_it_was_looked_for(void **state)
{
    (void)state;
    char path[PATH_MAX], err[QD_ERR_LEN];
    assert_int_equal(open_elsewhere(path, err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "Fake is not here: no libqdyno_elsewhere.so.2 nor libqdyno_elsewhere.so.1");
    ASSERT_CONTAINS(err, "CUDA_HOME");
}

static void a_broken_file_is_passed_over_or_named(void **state)
{
    (void)state;
    char path[PATH_MAX], err[QD_ERR_LEN];
    put("home/lib64/libqdyno_elsewhere.so.1", "no library", 10);
    setenv("CUDA_HOME", in_dir(&dir, "home"), 1);
    assert_int_equal(open_elsewhere(path, err), QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "Fake cannot be loaded");
    ASSERT_CONTAINS(err, "home/lib64/libqdyno_elsewhere.so.1");
    put_fake("env/lib/python3.11/site-packages/nvidia/fake/lib/libqdyno_elsewhere.so.1");
    setenv("VIRTUAL_ENV", in_dir(&dir, "env"), 1);
    ASSERT_OK(open_elsewhere(path, err), err);
    ASSERT_CONTAINS(path, "nvidia/fake/lib/libqdyno_elsewhere.so.1");
}

static void a_missing_function_names_library_and_function(void **state)
{
    (void)state;
    static const struct qd_library fake = {"Fake", {"libqdyno_fake.so.1"}, "nothing"};
    static const struct qd_library_symbol wanted = {"qd_fake_missing", offsetof(struct functions, answer)};
    struct functions functions = {0};
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_library_open(&fake, &wanted, 1, &functions, NULL, 0, err, sizeof err),
                     QD_ERR_ENVIRONMENT);
    ASSERT_CONTAINS(err, "libqdyno_fake.so.1: no function qd_fake_missing");
}

static void every_library_says_what_its_absence_disables(void **state)
{
    (void)state;
    for (int i = 0; i < QD_N_LIBRARIES; i++) {
        assert_non_null(qd_libraries[i].name);
        assert_non_null(qd_libraries[i].sonames[0]);
        ASSERT_CONTAINS(qd_libraries[i].sonames[0], ".so.");
        assert_true(strlen(qd_libraries[i].disables) > 0);
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    fakes_come_first(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_loader_is_asked_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_place_is_looked_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_python_in_path_has_its_packages_looked_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_soname_is_preferred, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_missing_library_says_where_it_was_looked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_broken_file_is_passed_over_or_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_missing_function_names_library_and_function, set_up, tear_down),
        cmocka_unit_test(every_library_says_what_its_absence_disables),
    };
    return cmocka_run_group_tests_name("library", tests, NULL, NULL);
}
