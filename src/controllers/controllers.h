/* `margay controllers`: what runs once for a cluster, as Calico's kube-controllers. */
#pragma once

/* argv[0] is the command's name. Runs until SIGTERM; exit code: 0, 1 failed, 2 wrong usage. */
int controllers_main(int argc, char **argv);
