/* Addresses and prefixes from any bytes: no crash, and what was accepted prints to a text that
 * reads back as the same value. */
#include "base/ip.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char text[IP_TEXT_MAX];
    struct prefix p;
    if (prefix_parse(str_n((const char *)data, n), &p) == 0) {
        struct prefix again;
        if (prefix_parse(str_c(prefix_text(&p, text)), &again) < 0 || !prefix_eq(&p, &again)) {
            abort();
        }
        struct prefix masked = prefix_mask(p);
        if (!prefix_is_masked(&masked) || !prefix_has_ip(&masked, &p.ip)) {
            abort();
        }
        uint64_t offset = prefix_offset(&masked, &p.ip);
        struct ip46 back;
        if (offset != UINT64_MAX && (!prefix_nth(&masked, offset, &back) || !ip_eq(&back, &p.ip))) {
            abort();
        }
    }
    struct ip46 ip;
    if (ip_parse(str_n((const char *)data, n), &ip) == 0) {
        struct ip46 again;
        if (ip_parse(str_c(ip_text(&ip, text)), &again) < 0 || !ip_eq(&ip, &again)) {
            abort();
        }
    }
    return 0;
}
