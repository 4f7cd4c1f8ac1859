/* Network namespaces. See netns.h. */
#include "netlink/netns.h"

#include "base/fd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define OWN_NETNS "/proc/thread-self/ns/net"

int netns_enter(int netns_fd, int *own_fd) {
    MG_CLEANUP(fd_close) int own = open(OWN_NETNS, O_RDONLY | O_CLOEXEC);
    if (own < 0 || setns(netns_fd, CLONE_NEWNET) < 0) {
        return -errno;
    }
    *own_fd = TAKE_FD(own);
    return 0;
}

void netns_leave(int own_fd) {
    mg_assert(setns(own_fd, CLONE_NEWNET) == 0);
}

int netns_check(int netns_fd) {
    struct statfs fs;
    if (fstatfs(netns_fd, &fs) < 0) {
        return -errno;
    }
    if (fs.f_type != NSFS_MAGIC) {
        return ERR_INVALID;
    }
    int type = ioctl(netns_fd, NS_GET_NSTYPE);
    return type < 0 ? -errno : type == CLONE_NEWNET ? 0 : ERR_INVALID;
}

int netns_is_own(int netns_fd) {
    struct stat a, b;
    if (fstat(netns_fd, &a) < 0 || stat(OWN_NETNS, &b) < 0) {
        return -errno;
    }
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
