/*
 * Loaded before the C library (LD_PRELOAD), it writes down in which order a
 * process writes and syncs the files of one folder, and what it says and hears
 * in plain text on its sockets. Told so, it lets writes or syncs of a file
 * fail as a bad or full disk does.
 *
 * WITNESS_FOLDER  the folder; files elsewhere are not looked at
 * WITNESS_LOG     one line for each event: thread, kind, name, text, by tabs
 * WITNESS_FAULTS  a file that may appear at any time, with one line:
 *                 errno, `write` or `sync`, how the name ends, every how often
 *
 * What a call made durable is written down after it, what it may have made
 * undurable before anything can follow it. All calls go to the kernel
 * directly, so that nothing here calls itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Bytes of a message that are kept: a head, and the start of a body. */
#define TEXT 2600
#define LINE 4000
/* The log is kept away from the numbers that a process counts its files by. */
#define LOG_FD 700

static int log_fd = -1;
static const char *folder;
static const char *faults;
static atomic_uint calls;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WITNESS_LOG");
    folder = getenv("WITNESS_FOLDER");
    faults = getenv("WITNESS_FAULTS");
    if (!path || !folder) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return;
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD);
    syscall(SYS_close, fd);
}

static void note(const char *kind, const char *name, const char *text) {
    char line[LINE];
    int saved = errno;
    int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\n", (long)syscall(SYS_gettid), kind, name, text);
    if (length >= (int)sizeof line) {
        length = sizeof line;
        line[LINE - 1] = '\n';
    }
    syscall(SYS_write, log_fd, line, (size_t)length);
    errno = saved;
}

/* The name below the folder, or NULL where it lies elsewhere. */
static const char *below(const char *path) {
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0) return NULL;
    if (path[length] == '\0') return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

/* What a descriptor is, as /proc has it. */
static const char *target(int fd, char *path, size_t size) {
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    errno = saved;
    if (length < 0) return NULL;
    path[length] = '\0';
    return path;
}

static const char *file_name(int fd, char *path, size_t size) {
    if (log_fd < 0 || fd == log_fd || !target(fd, path, size)) return NULL;
    return below(path);
}

static int is_socket(int fd) {
    char path[64];
    return target(fd, path, sizeof path) && strncmp(path, "socket:", 7) == 0;
}

/* The number of the error that this call shall end with; 0 is none. */
static int fault(const char *operation, const char *name) {
    char text[256], wanted[32], end[128];
    int number = 0;
    unsigned every = 1;
    if (!faults) return 0;
    int saved = errno;
    int fd = syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC);
    long length = fd < 0 ? -1 : syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0) syscall(SYS_close, fd);
    errno = saved;
    if (length <= 0) return 0;
    text[length] = '\0';
    if (sscanf(text, "%d %31s %127s %u", &number, wanted, end, &every) != 4 || every == 0) return 0;
    size_t whole = strlen(name), part = strlen(end);
    if (strcmp(operation, wanted) != 0 || part > whole || strcmp(name + whole - part, end) != 0) return 0;
    if (atomic_fetch_add(&calls, 1) % every != 0) return 0;
    note("fault", name, operation);
    return number;
}

/* Text that a message begins with, or NULL: what is encrypted is not kept. */
static const char *plain(const struct iovec *parts, int count, size_t total, char *text) {
    size_t length = 0;
    for (int part = 0; part < count && total > 0; part++) {
        size_t some = parts[part].iov_len < total ? parts[part].iov_len : total;
        const unsigned char *bytes = parts[part].iov_base;
        total -= some;
        for (size_t at = 0; at < some && length < TEXT; at++) {
            unsigned char byte = bytes[at];
            int is_text = byte >= ' ' && byte < 127;
            if (!is_text && byte != '\r' && byte != '\n' && length < 12) return NULL;
            text[length++] = is_text ? byte : ' ';
        }
    }
    text[length] = '\0';
    return length >= 12 ? text : NULL;
}

static void message(const char *kind, int fd, const struct iovec *parts, int count, size_t total) {
    char text[TEXT + 1], name[16];
    if (log_fd < 0 || !plain(parts, count, total, text) || !is_socket(fd)) return;
    snprintf(name, sizeof name, "%d", fd);
    note(kind, name, text);
}

static void message_of(const char *kind, int fd, const void *bytes, size_t total) {
    struct iovec part = {(void *)bytes, total};
    message(kind, fd, &part, 1, total);
}

/* Files. */

static int synced(long call, int fd) {
    char path[4096];
    const char *name = file_name(fd, path, sizeof path);
    if (!name) return syscall(call, fd);
    int error = fault("sync", name);
    if (error) {
        errno = error;
        return -1;
    }
    note("syncs", name, "");
    int result = syscall(call, fd);
    if (result == 0) note("synced", name, "");
    return result;
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

static ssize_t written(int fd, const struct iovec *parts, int count, int is_at, off_t offset) {
    char path[4096];
    const char *name = file_name(fd, path, sizeof path);
    int error = name ? fault("write", name) : 0;
    if (error && count > 0) {
        /* Of what fails, a part may be there. */
        size_t half = parts[0].iov_len / 2;
        if (is_at) syscall(SYS_pwrite64, fd, parts[0].iov_base, half, offset);
        else syscall(SYS_write, fd, parts[0].iov_base, half);
        errno = error;
        return -1;
    }
    if (!name) {
        size_t total = 0;
        for (int part = 0; part < count; part++) total += parts[part].iov_len;
        if (!is_at) message("sent", fd, parts, count, total);
    }
    ssize_t result = is_at ? syscall(SYS_pwritev, fd, parts, count, offset, 0)
                           : syscall(SYS_writev, fd, parts, count);
    if (name && result > 0) note("wrote", name, "");
    return result;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    struct iovec part = {(void *)bytes, size};
    return written(fd, &part, 1, 0, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, 0, 0); }
ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) {
    struct iovec part = {(void *)bytes, size};
    return written(fd, &part, 1, 1, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    return pwrite64(fd, bytes, size, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    return written(fd, parts, count, 1, offset);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return written(fd, parts, count, 1, offset);
}

int ftruncate64(int fd, off_t length) {
    char path[4096];
    const char *name = file_name(fd, path, sizeof path);
    int result = syscall(SYS_ftruncate, fd, length);
    if (name && result == 0) note("wrote", name, "");
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int opened(int fd, int flags) {
    char path[4096];
    const char *name = fd >= 0 && (flags & O_CREAT) && (flags & O_EXCL) ? file_name(fd, path, sizeof path) : NULL;
    if (name) note("created", name, "");
    return fd;
}

#define MODE(flags)                                   \
    mode_t mode = 0;                                  \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {          \
        va_list rest;                                 \
        va_start(rest, flags);                        \
        mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                 \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(syscall(SYS_openat, AT_FDCWD, path, flags, mode), flags);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(syscall(SYS_openat, AT_FDCWD, path, flags, mode), flags);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opened(syscall(SYS_openat, at, path, flags, mode), flags);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opened(syscall(SYS_openat, at, path, flags, mode), flags);
}

int rename(const char *from, const char *to) {
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (log_fd >= 0 && result == 0 && below(from) && below(to)) note("renamed", below(from), below(to));
    return result;
}

/* Sockets. */

ssize_t send(int fd, const void *bytes, size_t size, int flags) {
    message_of("sent", fd, bytes, size);
    return syscall(SYS_sendto, fd, bytes, size, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *what, int flags) {
    message("sent", fd, what->msg_iov, (int)what->msg_iovlen, TEXT);
    return syscall(SYS_sendmsg, fd, what, flags);
}

ssize_t recv(int fd, void *bytes, size_t size, int flags) {
    ssize_t result = syscall(SYS_recvfrom, fd, bytes, size, flags, NULL, NULL);
    if (result > 0 && !(flags & MSG_PEEK)) message_of("heard", fd, bytes, (size_t)result);
    return result;
}

ssize_t read(int fd, void *bytes, size_t size) {
    ssize_t result = syscall(SYS_read, fd, bytes, size);
    if (result > 0) message_of("heard", fd, bytes, (size_t)result);
    return result;
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    ssize_t result = syscall(SYS_readv, fd, parts, count);
    if (result > 0) message("heard", fd, parts, count, (size_t)result);
    return result;
}
