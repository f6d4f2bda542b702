/* The shared objects of tests/fakes/, which take the place of NVIDIA's libraries. */
#ifndef QD_TESTS_SUPPORT_FAKES_H
#define QD_TESTS_SUPPORT_FAKES_H

/* Starts this test binary anew with the fakes in LD_LIBRARY_PATH, where they are found before the real ones;
 * returns in the new one. To be called first in main. */
void fakes_come_first(char **argv);

/* The path of a fake, in a static buffer. */
const char *fake_path(const char *soname);

#endif
