/* `margay bgp`: the process. */
#pragma once

/* argv[0] is "bgp". Options: --config FILE, or --datastore URL; see bgp_help. Returns the exit
 * code.
 */
int bgp_main(int argc, char **argv);
/* Options of the process, for help. */
extern const char bgp_help[];
