/* SIGINT and SIGTERM as a flag: what runs is ended in order and results so far are written. */
#ifndef QD_HARNESS_CLI_INTERRUPT_H
#define QD_HARNESS_CLI_INTERRUPT_H

#include <signal.h>

/* Installs the handlers and returns the flag, 0 until a signal arrives. A second signal ends the process at
 * once. The flag is the one piece of state that a signal handler cannot be handed. */
const volatile sig_atomic_t *qd_interrupt_install(void);

#endif
