/* The contract of store/store.h and store/syncer.h, the same for every driver:
 *
 *     conformance URL      sqlite and agent: an embedded store of its own, alone and behind the
 *                          agent's socket; else a datastore that is there: etcd:…, kubernetes:…
 *
 * What a store can't do is left out, and said. MARGAY_TEST_DEBUG (of any value) shows the drivers'
 * log. MARGAY_TEST_HOOKS and MARGAY_TEST_STORE_DIRECT are the runner's
 * (tests/e2e/test_store_conformance.py): who breaks the way to the server, and a way around. */
#include "subject.h"

#include "base/log.h"

int main(int argc, char **argv) {
    const char *url = argc > 1 ? argv[1] : getenv("MARGAY_TEST_STORE");
    if (!url) {
        fprintf(stderr, "usage: conformance URL [PATTERN]\n");
        return 2;
    }
    if (getenv("MARGAY_TEST_DEBUG")) {
        log_level_set(LOG_DEBUG);
    }
    subject_begin(url);
    if (argc > 2) {
        cmocka_set_test_filter(argv[2]);
    }
    int failed = _cmocka_run_group_tests("calls", calls_tests, calls_n, NULL, NULL);
    failed += _cmocka_run_group_tests("processes", processes_tests, processes_n, NULL, NULL);
    failed += _cmocka_run_group_tests("follow", follow_tests, follow_n, NULL, NULL);
    subject_end();
    return failed ? 1 : 0;
}
