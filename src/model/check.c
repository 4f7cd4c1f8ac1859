/* What a text may be: names, addresses, prefixes, durations, selectors, interface names. Decides on
 * the form alone; each check answers NULL or what would be allowed. */
#include "model/policy.h"
#include "model/schema.h"

#include <stdlib.h>

static model_selector_check selector_check;

void model_set_selector_check(model_selector_check check) {
    selector_check = check;
}

static bool is_lower(char ch) {
    return ch >= 'a' && ch <= 'z';
}
static bool is_digit(char ch) {
    return ch >= '0' && ch <= '9';
}
static bool is_alpha(char ch) {
    return is_lower(ch) || (ch >= 'A' && ch <= 'Z');
}
static bool is_alnum(char ch) {
    return is_alpha(ch) || is_digit(ch);
}
static bool in_set(char ch, const char *set) {
    return ch && strchr(set, ch) != NULL;
}

bool is_dns_label(struct str s, size_t max) {
    if (s.n == 0 || s.n > max || s.p[0] == '-' || s.p[s.n - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-') {
            return false;
        }
    }
    return true;
}

bool is_dns_subdomain(struct str s) {
    if (s.n == 0 || s.n > 253) {
        return false;
    }
    struct str rest = s;
    while (rest.p) {
        if (!is_dns_label(str_cut(&rest, '.'), 253)) {
            return false;
        }
    }
    return true;
}

static bool is_ident(struct str s, size_t max, const char *more) {
    if (s.n == 0 || s.n > max) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && !in_set(s.p[i], more)) {
            return false;
        }
    }
    return true;
}

bool is_port_name(struct str s) {
    return is_ident(s, 128, "_.-");
}

/* Kubernetes' port name: lower case, a letter in it, no two dashes in a row or at an end. */
static bool is_k8s_port_name(struct str s) {
    bool has_letter = false;
    if (!is_dns_label(s, 15)) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        has_letter |= is_lower(s.p[i]);
        if (i && s.p[i] == '-' && s.p[i - 1] == '-') {
            return false;
        }
    }
    return has_letter;
}

bool is_label_value(struct str s) {
    return s.n == 0 || (is_ident(s, 63, "_.-") && is_alnum(s.p[0]) && is_alnum(s.p[s.n - 1]));
}

bool is_label_key(struct str s) {
    ptrdiff_t slash = str_find(s, '/', 0);
    if (slash >= 0) {
        if (!is_dns_subdomain(str_sub(s, 0, (size_t)slash))) {
            return false;
        }
        s = str_sub(s, (size_t)slash + 1, s.n);
    }
    return s.n > 0 && is_label_value(s);
}

/* ---- addresses ---- */

static const char *check_net(struct str s, struct arena *a, enum check_id id) {
    static const char *const ALLOWED[] = {"a prefix such as 10.0.0.0/8 or fd00::/8",
                                          "an IPv4 prefix such as 10.0.0.0/8",
                                          "an IPv6 prefix such as fd00::/8"};
    const char *allowed = ALLOWED[id == CHECK_NET4 ? 1 : id == CHECK_NET6 ? 2 : 0];
    struct prefix p;
    if (prefix_parse(s, &p) || (id == CHECK_NET4 && p.ip.family != IP_V4) ||
        (id == CHECK_NET6 && p.ip.family != IP_V6)) {
        return allowed;
    }
    char text[IP_TEXT_MAX];
    if (str_find(s, '/', 0) < 0) {
        return arena_printf(a, "a prefix with its length: write %.*s/%u", STR_FMT(s),
                            ip_bits(&p.ip))
            .p;
    }
    if (!prefix_is_masked(&p)) {
        struct prefix m = prefix_mask(p);
        return arena_printf(a, "a prefix without host bits: write %s", prefix_text(&m, text)).p;
    }
    if (id == CHECK_NOT_NET && p.len == 0) {
        return "any prefix but one of all addresses, which would leave nothing: remove it";
    }
    return NULL;
}

static bool is_port_number(struct str s) {
    uint64_t v;
    return str_to_u64(s, &v) == 0 && v >= 1 && v <= 65535;
}

static bool is_ip_port(struct str s) {
    struct ip46 ip;
    if (ip_parse(s, &ip) == 0) {
        return true;
    }
    ptrdiff_t colon = -1;
    for (size_t i = 0; i < s.n; i++) {
        colon = s.p[i] == ':' ? (ptrdiff_t)i : colon;
    }
    if (colon < 1 || !is_port_number(str_sub(s, (size_t)colon + 1, s.n))) {
        return false;
    }
    struct str host = str_sub(s, 0, (size_t)colon);
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        return ip_parse(str_sub(host, 1, host.n - 1), &ip) == 0 && ip.family == IP_V6;
    }
    return ip_parse(host, &ip) == 0 && ip.family == IP_V4;
}

static bool is_mac(struct str s) {
    if (s.n != 17) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool hex = is_digit(ch) || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
        if (i % 3 == 2 ? ch != ':' && ch != '-' : !hex) {
            return false;
        }
    }
    return true;
}

/* ---- numbers in texts ---- */

static bool is_u(struct str s, uint64_t max) {
    uint64_t v;
    return str_to_u64(s, &v) == 0 && v <= max;
}

static bool is_as_number(struct str s) {
    struct str rest = s, hi = str_cut(&rest, '.');
    return rest.p ? is_u(hi, 65535) && is_u(rest, 65535) : is_u(s, UINT32_MAX);
}

static bool is_community(struct str s) {
    struct str rest = s, p[3];
    size_t n = 0;
    while (rest.p && n < 3) {
        p[n++] = str_cut(&rest, ':');
    }
    uint64_t max = n == 2 ? 65535 : UINT32_MAX;
    if (rest.p || n < 2) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_u(p[i], max)) {
            return false;
        }
    }
    return true;
}

/* Numbers with units one after the other, as Go writes durations. */
static bool is_duration(struct str s, bool is_go) {
    size_t i = 0;
    if (is_go && i < s.n && (s.p[i] == '-' || s.p[i] == '+')) {
        i++;
    }
    if (is_go && s.n == i + 1 && s.p[i] == '0') {
        return true;
    }
    if (is_go && s.n == i) {
        return false;
    }
    while (i < s.n) {
        size_t from = i, digits = 0;
        while (i < s.n && is_digit(s.p[i])) {
            i++;
            digits++;
        }
        if (i < s.n && s.p[i] == '.') {
            size_t frac = 0;
            i++;
            while (i < s.n && is_digit(s.p[i])) {
                i++;
                frac++;
            }
            if (!is_go && (frac == 0 || digits == 0)) {
                return false;
            }
            digits += frac;
        }
        if (digits == 0 || i - from > 30) {
            return false;
        }
        static const char *const UNITS[] = {"ms", "s", "m", "h", "ns", "us", "\302\265s"};
        size_t unit = 0;
        for (size_t k = 0; k < (is_go ? ARRAY_LEN(UNITS) : 4) && !unit; k++) {
            struct str u = str_c(UNITS[k]);
            unit = str_starts(str_sub(s, i, s.n), u) ? u.n : 0;
        }
        if (!unit) {
            return false;
        }
        i += unit;
    }
    return true;
}

/* KEY=VALUE,…: keys of A-Z a-z 0-9 - _, a comma may end the list. */
static bool is_key_values(struct str s, bool is_bool) {
    struct str rest = s;
    while (rest.p) {
        struct str value = str_cut(&rest, ','), key = {0};
        if (value.n == 0 && !rest.p) {
            return true;
        }
        key = str_cut(&value, '=');
        if (!is_ident(key, 1024, "-_") || !value.p || str_find(value, '=', 0) >= 0) {
            return false;
        }
        if (is_bool ? value.n && !str_is(value, "true") && !str_is(value, "false") : !value.n) {
            return false;
        }
    }
    return true;
}

/* "5/second": a number of 1 to 4 digits without a leading zero. */
static bool is_log_rate(struct str s) {
    struct str rest = s, num = str_cut(&rest, '/');
    return num.n >= 1 && num.n <= 4 && num.p[0] != '0' && is_u(num, 9999) &&
           (str_is(rest, "second") || str_is(rest, "minute") || str_is(rest, "hour") ||
            str_is(rest, "day"));
}

/* ---- regular expressions ---- */

/* Go's syntax (RE2), by structure: groups and classes closed, something before each repetition,
 * nothing after a backslash at the end. What passes here and still is no expression is found where
 * it is used. */
static bool is_regexp(struct str s) {
    size_t depth = 0;
    bool has_item = false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        switch (ch) {
        case '\\':
            if (++i >= s.n) {
                return false;
            }
            has_item = true;
            break;
        case '[':
            i++;
            i += i < s.n && s.p[i] == '^';
            i += i < s.n && s.p[i] == ']';
            while (i < s.n && s.p[i] != ']') {
                i += s.p[i] == '\\' ? 2 : 1;
            }
            if (i >= s.n) {
                return false;
            }
            has_item = true;
            break;
        case '(':
            depth++;
            has_item = false;
            if (i + 1 < s.n && s.p[i + 1] == '?') {
                i++;
            }
            break;
        case ')':
            if (depth-- == 0) {
                return false;
            }
            has_item = true;
            break;
        case '|':
            has_item = false;
            break;
        case '*':
        case '+':
        case '?':
            if (!has_item) {
                return false;
            }
            break;
        default:
            has_item = true;
            break;
        }
    }
    return depth == 0;
}

/* Interface name, maybe with one of `wild` in it. */
static bool is_iface(struct str s, const char *wild) {
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && !in_set(s.p[i], "_.-") && !in_set(s.p[i], wild)) {
            return false;
        }
    }
    return s.n >= 1 && s.n <= 15;
}

static bool is_iface_filter(struct str s) {
    ptrdiff_t plus = str_find(s, '+', 0);
    return is_iface(s, "+") && (plus < 0 || (size_t)plus == s.n - 1);
}

static bool is_host(struct str s) {
    struct ip46 ip;
    return ip_parse(s, &ip) == 0 || is_ident(s, 253, ".-_");
}

static bool is_http_path(struct str s) {
    if (s.n == 0 || s.p[0] != '/') {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (in_set(s.p[i], "?# ")) {
            return false;
        }
    }
    return true;
}

/* ---- selectors ---- */

static const char *check_selector(struct str s, struct arena *a, enum check_id id) {
    if (s.n > 1024) {
        return "a selector of at most 1024 bytes";
    }
    bool has_global = str_contains(s, STR("global("));
    if (id == CHECK_SELECTOR1 && has_global) {
        return "a selector without global(), which belongs into a rule's namespaceSelector";
    }
    if (id == CHECK_SELECTOR_NS && has_global && !str_is(str_trim(s), "global()")) {
        return "global() by itself, or a selector without it";
    }
    struct err e = {0};
    if (selector_check && selector_check(s, &e)) {
        return arena_printf(a, "a selector: %s", e.msg).p;
    }
    return NULL;
}

/* ---- all of them ---- */

#define WHEN(ok, allowed) return (ok) ? NULL : (allowed)

const char *check_text(enum check_id id, struct str s, struct arena *a) {
    struct ip46 ip;
    struct prefix p;
    switch (id) {
    case CHECK_NONE:
    case CHECK_LABELS:
        return NULL;
    case CHECK_NAME:
        WHEN(is_dns_subdomain(s), "a name of lower-case letters, digits, - and ., at most 253, "
                                  "with a letter or digit at both ends");
    case CHECK_LABEL:
        WHEN(is_dns_label(s, 63), "a name of lower-case letters, digits and -, at most 63, with a "
                                  "letter or digit at both ends");
    case CHECK_SELECTOR:
    case CHECK_SELECTOR1:
    case CHECK_SELECTOR_NS:
        return check_selector(s, a, id);
    case CHECK_NET:
    case CHECK_NET4:
    case CHECK_NET6:
    case CHECK_NOT_NET:
        return check_net(s, a, id);
    case CHECK_CIDR:
        WHEN(prefix_parse(s, &p) == 0, "an address or a prefix such as 10.0.0.0/8 or fd00::/8");
    case CHECK_IP:
        WHEN(ip_parse(s, &ip) == 0, "an address such as 10.0.0.1 or fd00::1");
    case CHECK_IPV4:
        WHEN(ip_parse(s, &ip) == 0 && ip.family == IP_V4, "an IPv4 address such as 10.0.0.1");
    case CHECK_IPV6:
        WHEN(ip_parse(s, &ip) == 0 && ip.family == IP_V6, "an IPv6 address such as fd00::1");
    case CHECK_IFACE:
        WHEN(is_iface(s, ""), "an interface name: 1 to 15 of A-Z a-z 0-9 _ . -");
    case CHECK_HEP_IFACE:
        WHEN(str_is(s, "*") || is_iface(s, ""),
             "an interface name (1 to 15 of A-Z a-z 0-9 _ . -), or * for all");
    case CHECK_IFACE_FILTER:
        WHEN(is_iface_filter(s), "an interface name, which may end in +");
    case CHECK_BGP_IFACE:
        WHEN(is_iface(s, "*?"), "an interface name, in which * may stand");
    case CHECK_PORT_NAME:
        WHEN(is_k8s_port_name(s), "a port name: 1 to 15 of a-z 0-9 -, with a letter in it");
    case CHECK_MAC:
        WHEN(is_mac(s), "a MAC address such as ee:ee:ee:ee:ee:ee");
    case CHECK_REGEXP:
        WHEN(is_regexp(s), "a regular expression");
    case CHECK_DURATION:
        WHEN(is_duration(s, false), "a duration such as 90s, 1m30s or 500ms");
    case CHECK_GO_DURATION:
        WHEN(is_duration(s, true), "a duration such as 90s, 1m30s or 500ms");
    case CHECK_KEY_VALUES:
        WHEN(is_key_values(s, false), "a list such as Name=value,Other=value");
    case CHECK_BOOL_VALUES:
        WHEN(is_key_values(s, true), "a list such as Name=true,Other=false");
    case CHECK_AS_NUMBER:
        WHEN(is_as_number(s), "an AS number: 0 to 4294967295, or two of 0 to 65535 with a dot");
    case CHECK_COMMUNITY:
        WHEN(is_community(s), "a community: two numbers up to 65535, or three up to 4294967295, "
                              "with : between them");
    case CHECK_IP_PORT:
        WHEN(is_ip_port(s), "an address, ADDRESS:PORT, or [ADDRESS]:PORT for IPv6");
    case CHECK_LOG_PREFIX:
        WHEN(s.n == 0 || is_ident(s, 1024, "%: /_-"), "text of A-Z a-z 0-9 % : / _ - and blanks");
    case CHECK_LOG_RATE:
        WHEN(is_log_rate(s), "a rate such as 10/second: 1 to 9999 per second, minute, hour, day");
    case CHECK_DSCP:
        WHEN(is_u(s, 63), "a DSCP value of 0 to 63, or its name");
    case CHECK_CT_TIMEOUT:
        WHEN(str_is(s, "Auto") || is_duration(s, false), "a duration such as 90s, or Auto");
    case CHECK_LABEL_KEY:
        WHEN(is_label_key(s), "a label's name: [DNS name/] and 1 to 63 of A-Z a-z 0-9 _ . -, with "
                              "a letter or digit at both ends");
    case CHECK_LABEL_VALUE:
        WHEN(is_label_value(s), "a label's value: at most 63 of A-Z a-z 0-9 _ . -, with a letter "
                                "or digit at both ends");
    case CHECK_HOST:
        WHEN(is_host(s), "a host name or an address");
    case CHECK_HTTP_PATH:
        WHEN(is_http_path(s), "a path that starts with / and holds no ?, # or blank");
    }
    return NULL;
}

/* ---- ports and protocols ---- */

bool port_read(const struct jnode *n, struct port_spec *out, const char **why) {
    *why = "a port of 1 to 65535, a range such as \"1000:2000\" or a port's name";
    *out = (struct port_spec){0};
    if (n->type == J_INT) {
        if (n->i < 1 || n->i > 65535) {
            return false;
        }
        out->min = out->max = (uint16_t)n->i;
        return true;
    }
    if (n->type != J_STR || n->s.n == 0) {
        return false;
    }
    struct str rest = n->s, lo = str_cut(&rest, ':');
    struct str hi = rest.p ? rest : lo;
    uint64_t min, max;
    bool is_number = true;
    for (size_t i = 0; i < n->s.n; i++) {
        is_number = is_number && is_digit(n->s.p[i]);
    }
    if (!is_number && !rest.p) {
        if (!is_port_name(n->s)) {
            *why = "a port's name: 1 to 128 of A-Z a-z 0-9 _ . -";
            return false;
        }
        out->name = n->s;
        return true;
    }
    if (str_to_u64(lo, &min) || str_to_u64(hi, &max) || min < 1 || max > 65535) {
        return false;
    }
    if (min > max) {
        *why = "a range from the lower port to the higher: swap them";
        return false;
    }
    out->min = (uint16_t)min;
    out->max = (uint16_t)max;
    return true;
}

int protocol_read(const struct jnode *n) {
    static const struct {
        const char *name;
        int number;
    } NAMES[] = {{"TCP", 6},     {"UDP", 17},   {"ICMP", 1},
                 {"ICMPv6", 58}, {"SCTP", 132}, {"UDPLite", 136}};
    if (n->type == J_INT) {
        return n->i >= 0 && n->i <= 255 ? (int)n->i : -1;
    }
    if (n->type != J_STR) {
        return -1;
    }
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        if (str_ieq(n->s, str_c(NAMES[i].name))) {
            return NAMES[i].number;
        }
    }
    uint64_t v;
    return str_to_u64(n->s, &v) == 0 && v <= 255 ? (int)v : -1;
}

/* ---- likeness ---- */

enum { NEAREST_MAX = 64 };

static size_t edits(struct str a, struct str b) {
    size_t row[NEAREST_MAX + 1];
    for (size_t j = 0; j <= b.n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.n; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            char x = a.p[i - 1], y = b.p[j - 1];
            bool same = (is_alpha(x) ? x | 32 : x) == (is_alpha(y) ? y | 32 : y);
            size_t best = diag + !same;
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diag = row[j];
            row[j] = best;
        }
    }
    return row[b.n];
}

const char *nearest_name(struct str word, const char *(*name)(const void *arg, size_t i),
                         const void *arg, size_t n) {
    const char *best = NULL;
    size_t limit = word.n / 3 > 2 ? word.n / 3 : 2;
    if (word.n == 0 || word.n > NEAREST_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        struct str s = str_c(name(arg, i));
        if (s.n > NEAREST_MAX || s.n > word.n + limit || word.n > s.n + limit) {
            continue;
        }
        size_t d = edits(word, s);
        if (d <= limit && d < s.n) {
            best = name(arg, i);
            limit = d ? d - 1 : 0;
            if (d == 0) {
                break;
            }
        }
    }
    return best;
}
