/* `margay confd`: keeps files rendered from a datastore. */
#pragma once

/* argv[0] is the name. Exit code: 0 done or stopped by a signal, 1 failed (-onetime: any template),
 * 2 wrong usage. */
int confd_main(int argc, char **argv);
