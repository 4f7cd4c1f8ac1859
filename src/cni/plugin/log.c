/* The plugin's log file (log_file_path), as Calico's: one line a call, appended by one write, so
 * that plugins that run at the same time don't mix; above log_file_max_size megabytes the file is
 * put aside under its name and the time, and of those log_file_max_count are kept, none longer than
 * log_file_max_age days. Whatever fails here is no failure of the call. */
#include "cni/plugin/plugin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

enum { SIZE_MB = 100, AGE_DAYS = 30, COUNT = 10, MAX_OLD = 256, DAY_S = 86400 };

static long number(const char *text, long otherwise) {
    char *end = NULL;
    long v = strtol(text, &end, 10);
    return text[0] == '\0' || *end != '\0' || v < 0 || v > 1000000 ? otherwise : v;
}

enum { TIME_TEXT = 48 };

/* "2006-01-02T15:04:05.000Z"; for names of files with '-' in place of ':'. */
static void put_time(const struct timespec *ts, bool is_name, char out[TIME_TEXT]) {
    char seconds[24];
    struct tm tm;
    (void)gmtime_r(&ts->tv_sec, &tm);
    if (strftime(seconds, sizeof(seconds), is_name ? "%Y-%m-%dT%H-%M-%S" : "%Y-%m-%dT%H:%M:%S",
                 &tm) == 0) {
        seconds[0] = '\0';
    }
    (void)snprintf(out, TIME_TEXT, "%s.%03uZ", seconds, (unsigned)(ts->tv_nsec / 1000000) % 1000);
}

static void make_parents(char *path) {
    for (char *c = path + 1; (c = strchr(c, '/')) != NULL; c++) {
        *c = '\0';
        (void)mkdir(path, 0755);
        *c = '/';
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)b, *(char *const *)a); /* newest first */
}

/* Names of old files are the log's own and a time: what else is in the folder stays. */
static void prune(const char *path, size_t stem, long count, long age_days, time_t now) {
    static char *old[MAX_OLD];
    size_t n = 0;
    char file[2 * PLUGIN_LOG_PATH_MAX];
    const char *slash = strrchr(path, '/'), *ext = path + stem;
    const char *base = slash + 1;
    size_t base_n = stem - (size_t)(base - path);
    (void)snprintf(file, sizeof(file), "%.*s", (int)(slash - path + 1), path);
    DIR *d = opendir(file);
    if (d == NULL) {
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL && n < MAX_OLD; e = readdir(d)) {
        size_t len = strlen(e->d_name);
        if (len == base_n + strlen("-2006-01-02T15-04-05.000Z") + strlen(ext) &&
            strncmp(e->d_name, base, base_n) == 0 && e->d_name[base_n] == '-' &&
            strcmp(e->d_name + len - strlen(ext), ext) == 0) {
            old[n] = strdup(e->d_name);
            n += old[n] != NULL;
        }
    }
    (void)closedir(d);
    qsort(old, n, sizeof(old[0]), by_name);
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        (void)snprintf(file, sizeof(file), "%.*s/%s", (int)(slash - path), path, old[i]);
        if ((long)i >= count ||
            (stat(file, &st) == 0 && now - st.st_mtime > (time_t)age_days * DAY_S)) {
            (void)unlink(file);
        }
        free(old[i]);
    }
}

/* Puts the file aside if it is full and nobody else does. Returns the file to write to. */
static int rotate(const struct conf *c, int fd, const struct timespec *now) {
    struct stat st, named;
    char aside[PLUGIN_LOG_PATH_MAX + 64], text[TIME_TEXT];
    const char *path = c->log_file;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        st.st_size < number(c->log_max_size, SIZE_MB) * 1000000L ||
        flock(fd, LOCK_EX | LOCK_NB) < 0 || stat(path, &named) < 0 || named.st_ino != st.st_ino) {
        return fd;
    }
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    size_t stem = dot != NULL && dot > slash ? (size_t)(dot - path) : strlen(path);
    put_time(now, true, text);
    (void)snprintf(aside, sizeof(aside), "%.*s-%s%s", (int)stem, path, text, path + stem);
    if (rename(path, aside) < 0) {
        return fd;
    }
    prune(path, stem, number(c->log_max_count, COUNT), number(c->log_max_age, AGE_DAYS),
          now->tv_sec);
    close(fd);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
}

/* Control bytes and quotes can't make a second line. */
static void clean(char *s) {
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) {
            *s = ' ';
        }
    }
}

void plugin_log(const struct conf *c, const struct request *r, const struct fail *f,
                int64_t took_ms) {
    char path[PLUGIN_LOG_PATH_MAX], line[4096], text[TIME_TEXT];
    struct timespec now;
    bool is_error = f != NULL && f->code != 0;
    if (c->log_file[0] != '/' || (!is_error && (strcasecmp(c->log_level, "warning") == 0 ||
                                                strcasecmp(c->log_level, "error") == 0))) {
        return;
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(path, sizeof(path), "%s", c->log_file);
    make_parents(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0) {
        return;
    }
    fd = rotate(c, fd, &now);
    put_time(&now, false, text);
    const char *const *s = r->strings;
    int n = snprintf(line, sizeof(line) - 1,
                     "%s %s %s network=%.200s container=%.100s ifname=%.15s netns=%.200s "
                     "args=%.500s took_ms=%lld",
                     text, is_error ? "error" : "info", s[WIRE_COMMAND] ? s[WIRE_COMMAND] : "-",
                     c->name, s[WIRE_CONTAINERID] ? s[WIRE_CONTAINERID] : "",
                     s[WIRE_IFNAME] ? s[WIRE_IFNAME] : "", s[WIRE_NETNS] ? s[WIRE_NETNS] : "",
                     s[WIRE_ARGS] ? s[WIRE_ARGS] : "", (long long)took_ms);
    if (is_error && n > 0 && (size_t)n < sizeof(line) - 1) {
        (void)snprintf(line + n, sizeof(line) - 1 - (size_t)n, " code=%d msg=\"%s\" details=\"%s\"",
                       f->code, f->msg, f->details);
    }
    clean(line);
    size_t len = strlen(line);
    line[len++] = '\n';
    ssize_t done = fd < 0 ? 0 : write(fd, line, len);
    (void)done; /* a full disk must not keep a pod from its network */
    plugin_close(&fd);
}
