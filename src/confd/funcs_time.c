/* datetime: the time of the render, as a value with the methods of Go's time.Time. */
#include "confd/funcs.h"

#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static const char *const MONTHS[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
static const char *const DAYS[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};

static void print_month(const struct value *v, struct buf *out) {
    buf_puts(out, v->i >= 1 && v->i <= 12 ? MONTHS[v->i - 1] : "%!Month");
}

static void print_weekday(const struct value *v, struct buf *out) {
    buf_puts(out, v->i >= 0 && v->i <= 6 ? DAYS[v->i] : "%!Weekday");
}

static const struct vtype VT_MONTH = {.kind = VK_INT, .name = "time.Month", .string = print_month};
static const struct vtype VT_WEEKDAY = {
    .kind = VK_INT, .name = "time.Weekday", .string = print_weekday};

/* What a time.Time holds: hidden behind a record without fields that templates could name. */
enum { NS, IS_UTC, MONO_NS };

static struct tm parts(const struct value *t, long *nsec) {
    struct tm tm = {0};
    int64_t ns = t->rec[NS].i;
    time_t s = (time_t)(ns / 1000000000 - (ns % 1000000000 < 0));
    *nsec = (long)(ns - (int64_t)s * 1000000000);
    if (t->rec[IS_UTC].b) {
        (void)gmtime_r(&s, &tm);
        tm.tm_zone = "UTC";
    } else {
        tzset();
        (void)localtime_r(&s, &tm);
    }
    return tm;
}

/* ---- Go's layouts ---- */

enum piece {
    P_NONE,
    P_LONG_MONTH,
    P_MONTH,
    P_NUM_MONTH,
    P_ZERO_MONTH,
    P_LONG_DAY,
    P_DAY_NAME,
    P_DAY,
    P_SPACE_DAY,
    P_ZERO_DAY,
    P_SPACE_YEAR_DAY,
    P_YEAR_DAY,
    P_HOUR,
    P_HOUR12,
    P_ZERO_HOUR12,
    P_MINUTE,
    P_ZERO_MINUTE,
    P_SECOND,
    P_ZERO_SECOND,
    P_LONG_YEAR,
    P_YEAR,
    P_PM,
    P_PM_LOWER,
    P_ZONE,
    P_Z_COLON_S,
    P_Z_S,
    P_Z_COLON,
    P_Z,
    P_Z_HOUR,
    P_NUM_COLON_S,
    P_NUM_S,
    P_NUM_COLON,
    P_NUM,
    P_NUM_HOUR,
    P_FRACTION,
};

/* In the order in which Go tries them at one place. */
static const struct {
    const char *text;
    enum piece piece;
} pieces[] = {
    {"January", P_LONG_MONTH},
    {"Jan", P_MONTH},
    {"Monday", P_LONG_DAY},
    {"Mon", P_DAY_NAME},
    {"MST", P_ZONE},
    {"002", P_YEAR_DAY},
    {"01", P_ZERO_MONTH},
    {"02", P_ZERO_DAY},
    {"03", P_ZERO_HOUR12},
    {"04", P_ZERO_MINUTE},
    {"05", P_ZERO_SECOND},
    {"06", P_YEAR},
    {"15", P_HOUR},
    {"1", P_NUM_MONTH},
    {"2006", P_LONG_YEAR},
    {"2", P_DAY},
    {"__2", P_SPACE_YEAR_DAY},
    {"_2", P_SPACE_DAY},
    {"3", P_HOUR12},
    {"4", P_MINUTE},
    {"5", P_SECOND},
    {"PM", P_PM},
    {"pm", P_PM_LOWER},
    {"-07:00:00", P_NUM_COLON_S},
    {"-070000", P_NUM_S},
    {"-07:00", P_NUM_COLON},
    {"-0700", P_NUM},
    {"-07", P_NUM_HOUR},
    {"Z07:00:00", P_Z_COLON_S},
    {"Z070000", P_Z_S},
    {"Z07:00", P_Z_COLON},
    {"Z0700", P_Z},
    {"Z07", P_Z_HOUR},
};

static bool is_lower(struct str s, size_t i) {
    return i < s.n && s.p[i] >= 'a' && s.p[i] <= 'z';
}

static bool is_digit(struct str s, size_t i) {
    return i < s.n && s.p[i] >= '0' && s.p[i] <= '9';
}

/* The piece at layout[i], its length in *len; P_NONE: the byte stands for itself. */
static enum piece piece_at(struct str layout, size_t i, size_t *len) {
    struct str rest = str_sub(layout, i, layout.n);
    if ((rest.p[0] == '.' || rest.p[0] == ',') && rest.n > 1 &&
        (rest.p[1] == '0' || rest.p[1] == '9')) {
        size_t n = 1;
        while (n < rest.n && rest.p[n] == rest.p[1]) {
            n++;
        }
        if (!is_digit(rest, n)) {
            *len = n;
            return P_FRACTION;
        }
    }
    for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
        struct str text = str_c(pieces[k].text);
        if (!str_starts(rest, text) || (pieces[k].piece == P_MONTH && is_lower(rest, 3))) {
            continue;
        }
        if (str_starts(rest, STR("_2006"))) { /* "_" and a year */
            break;
        }
        *len = text.n;
        return pieces[k].piece;
    }
    *len = 1;
    return P_NONE;
}

static void put_offset(struct buf *b, long gmtoff, bool has_colon, bool has_minutes, bool has_s) {
    long off = gmtoff < 0 ? -gmtoff : gmtoff;
    const char *sep = has_colon ? ":" : "";
    buf_printf(b, "%c%02ld", gmtoff < 0 ? '-' : '+', off / 3600);
    if (has_minutes) {
        buf_printf(b, "%s%02ld", sep, off / 60 % 60);
    }
    if (has_s) {
        buf_printf(b, "%s%02ld", sep, off % 60);
    }
}

static void put_fraction(struct buf *b, struct str layout, long nsec) {
    char text[16];
    size_t n = layout.n - 1;
    n = n > 9 ? 9 : n;
    snprintf(text, sizeof(text), "%09ld", nsec);
    if (layout.p[1] == '9') {
        while (n > 0 && text[n - 1] == '0') {
            n--;
        }
    }
    if (n > 0) {
        buf_putc(b, layout.p[0]);
        buf_add(b, text, n);
    }
}

static void put_piece(struct buf *b, enum piece p, struct str text, const struct tm *tm,
                      long nsec) {
    int h12 = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
    bool is_z = p >= P_Z_COLON_S && p <= P_Z_HOUR;
    if (is_z && tm->tm_gmtoff == 0) {
        buf_putc(b, 'Z');
        return;
    }
    switch (p) {
    case P_NONE:
        buf_str(b, text);
        break;
    case P_LONG_MONTH:
        buf_puts(b, MONTHS[tm->tm_mon]);
        break;
    case P_MONTH:
        buf_add(b, MONTHS[tm->tm_mon], 3);
        break;
    case P_NUM_MONTH:
        buf_printf(b, "%d", tm->tm_mon + 1);
        break;
    case P_ZERO_MONTH:
        buf_printf(b, "%02d", tm->tm_mon + 1);
        break;
    case P_LONG_DAY:
        buf_puts(b, DAYS[tm->tm_wday]);
        break;
    case P_DAY_NAME:
        buf_add(b, DAYS[tm->tm_wday], 3);
        break;
    case P_DAY:
        buf_printf(b, "%d", tm->tm_mday);
        break;
    case P_SPACE_DAY:
        buf_printf(b, "%2d", tm->tm_mday);
        break;
    case P_ZERO_DAY:
        buf_printf(b, "%02d", tm->tm_mday);
        break;
    case P_SPACE_YEAR_DAY:
        buf_printf(b, "%3d", tm->tm_yday + 1);
        break;
    case P_YEAR_DAY:
        buf_printf(b, "%03d", tm->tm_yday + 1);
        break;
    case P_HOUR:
        buf_printf(b, "%02d", tm->tm_hour);
        break;
    case P_HOUR12:
        buf_printf(b, "%d", h12);
        break;
    case P_ZERO_HOUR12:
        buf_printf(b, "%02d", h12);
        break;
    case P_MINUTE:
        buf_printf(b, "%d", tm->tm_min);
        break;
    case P_ZERO_MINUTE:
        buf_printf(b, "%02d", tm->tm_min);
        break;
    case P_SECOND:
        buf_printf(b, "%d", tm->tm_sec);
        break;
    case P_ZERO_SECOND:
        buf_printf(b, "%02d", tm->tm_sec);
        break;
    case P_LONG_YEAR:
        buf_printf(b, "%04d", tm->tm_year + 1900);
        break;
    case P_YEAR:
        buf_printf(b, "%02d", tm->tm_year % 100);
        break;
    case P_PM:
        buf_puts(b, tm->tm_hour >= 12 ? "PM" : "AM");
        break;
    case P_PM_LOWER:
        buf_puts(b, tm->tm_hour >= 12 ? "pm" : "am");
        break;
    case P_ZONE:
        buf_puts(b, tm->tm_zone);
        break;
    case P_Z_COLON_S:
    case P_NUM_COLON_S:
        put_offset(b, tm->tm_gmtoff, true, true, true);
        break;
    case P_Z_S:
    case P_NUM_S:
        put_offset(b, tm->tm_gmtoff, false, true, true);
        break;
    case P_Z_COLON:
    case P_NUM_COLON:
        put_offset(b, tm->tm_gmtoff, true, true, false);
        break;
    case P_Z:
    case P_NUM:
        put_offset(b, tm->tm_gmtoff, false, true, false);
        break;
    case P_Z_HOUR:
    case P_NUM_HOUR:
        put_offset(b, tm->tm_gmtoff, false, false, false);
        break;
    case P_FRACTION:
        put_fraction(b, text, nsec);
        break;
    }
}

static void format(const struct value *t, struct str layout, struct buf *out) {
    long nsec = 0;
    struct tm tm = parts(t, &nsec);
    for (size_t i = 0, len = 0; i < layout.n; i += len) {
        enum piece p = piece_at(layout, i, &len);
        put_piece(out, p, str_sub(layout, i, i + len), &tm, nsec);
    }
}

static void print_time(const struct value *v, struct buf *out) {
    format(v, STR("2006-01-02 15:04:05.999999999 -0700 MST"), out);
    int64_t mono = v->rec[MONO_NS].i;
    if (mono) {
        buf_printf(out, " m=+%lld.%09lld", (long long)(mono / 1000000000),
                   (long long)(mono % 1000000000));
    }
}

/* ---- methods ---- */

static int fn_format(FUNC_ARGS) {
    struct buf b = BUF_INIT(c->text->max);
    format(&c->self, value_to_str(&args[0]), &b);
    *out = value_str(arena_dup(c->arena, buf_view(&b)));
    buf_fini(&b);
    return 0;
}

static int fn_string(FUNC_ARGS) {
    struct buf b = BUF_INIT(c->text->max);
    print_time(&c->self, &b);
    *out = value_str(arena_dup(c->arena, buf_view(&b)));
    buf_fini(&b);
    return 0;
}

#define PART(fn, expr)                         \
    static int fn(FUNC_ARGS) {                 \
        long nsec = 0;                         \
        struct tm tm = parts(&c->self, &nsec); \
        (void)tm;                              \
        *out = value_int(expr);                \
        return 0;                              \
    }
PART(fn_year, tm.tm_year + 1900)
PART(fn_day, tm.tm_mday)
PART(fn_hour, tm.tm_hour)
PART(fn_minute, tm.tm_min)
PART(fn_second, tm.tm_sec)
PART(fn_nanosecond, nsec)
PART(fn_year_day, tm.tm_yday + 1)

static int fn_month(FUNC_ARGS) {
    long nsec = 0;
    *out = (struct value){.type = &VT_MONTH, .i = parts(&c->self, &nsec).tm_mon + 1};
    return 0;
}

static int fn_weekday(FUNC_ARGS) {
    long nsec = 0;
    *out = (struct value){.type = &VT_WEEKDAY, .i = parts(&c->self, &nsec).tm_wday};
    return 0;
}

#define SINCE_1970(fn, unit)                                                       \
    static int fn(FUNC_ARGS) {                                                     \
        *out = (struct value){.type = &VT_INT64, .i = c->self.rec[NS].i / (unit)}; \
        return 0;                                                                  \
    }
SINCE_1970(fn_unix, 1000000000)
SINCE_1970(fn_unix_milli, 1000000)
SINCE_1970(fn_unix_micro, 1000)
SINCE_1970(fn_unix_nano, 1)

static int in_zone(const struct tmpl_call *c, bool is_utc, struct value *out) {
    struct value *f = arena_array(c->arena, struct value, 3);
    f[NS] = c->self.rec[NS];
    f[IS_UTC] = value_bool(is_utc);
    f[MONO_NS] = c->self.rec[MONO_NS];
    *out = c->self;
    out->rec = f;
    return 0;
}

static int fn_utc(FUNC_ARGS) {
    return in_zone(c, true, out);
}

static int fn_local(FUNC_ARGS) {
    return in_zone(c, false, out);
}

static const struct tmpl_func methods[] = {
    {"Format", fn_format, 1, false, {&VT_STRING}},
    {"String", fn_string, 0, false, {NULL}},
    {"Year", fn_year, 0, false, {NULL}},
    {"Month", fn_month, 0, false, {NULL}},
    {"Day", fn_day, 0, false, {NULL}},
    {"Hour", fn_hour, 0, false, {NULL}},
    {"Minute", fn_minute, 0, false, {NULL}},
    {"Second", fn_second, 0, false, {NULL}},
    {"Nanosecond", fn_nanosecond, 0, false, {NULL}},
    {"YearDay", fn_year_day, 0, false, {NULL}},
    {"Weekday", fn_weekday, 0, false, {NULL}},
    {"Unix", fn_unix, 0, false, {NULL}},
    {"UnixMilli", fn_unix_milli, 0, false, {NULL}},
    {"UnixMicro", fn_unix_micro, 0, false, {NULL}},
    {"UnixNano", fn_unix_nano, 0, false, {NULL}},
    {"UTC", fn_utc, 0, false, {NULL}},
    {"Local", fn_local, 0, false, {NULL}},
};
static const struct vtype VT_TIME = {.kind = VK_RECORD,
                                     .name = "time.Time",
                                     .methods = methods,
                                     .n_methods = ARRAY_LEN(methods),
                                     .string = print_time};

static int fn_datetime(FUNC_ARGS) {
    static int64_t start_ns;
    start_ns = start_ns ? start_ns : clock_ns() - 1;
    struct value *f = arena_array(c->arena, struct value, 3);
    f[NS] = value_int(clock_wall_ns());
    f[IS_UTC] = value_bool(false);
    f[MONO_NS] = value_int(clock_ns() - start_ns);
    ((struct funcs *)c->ctx)->saw_world = true;
    *out = value_record(&VT_TIME, f);
    return 0;
}

static const struct tmpl_func table[] = {{"datetime", fn_datetime, 0, false, {NULL}}};
const struct func_part funcs_time = {table, ARRAY_LEN(table)};
