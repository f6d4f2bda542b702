/* A library that the program does not know; kernels/library.c opens it for tests/kernels/library.c. */
int qd_fake_answer(void);

int qd_fake_answer(void)
{
    return 42;
}
