/* Preloaded: on all processes but the first, a name that contains LAG_NAME isn't there when it is first looked for,
   nor for LAG_MS after that, as where a network file system remembers that a name was absent. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static struct { char name[512]; double since; } seen[256];
static int count;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int hidden(const char *path) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank) rank = getenv("PMI_RANK");
    const char *name = getenv("LAG_NAME"), *length = getenv("LAG_MS");
    if (!path || !rank || !name || !length || !strcmp(rank, "0") || !strstr(path, name)) return 0;
    for (int i = 0; i < count; i++)
        if (!strcmp(seen[i].name, path)) return now() - seen[i].since < atof(length);
    if (count < 256) {
        strncpy(seen[count].name, path, 511);
        seen[count++].since = now();
    }
    return 1;
}

#define REAL(f) ((__typeof__(&f))dlsym(RTLD_NEXT, #f))
#define GONE(path) if (hidden(path)) { errno = ENOENT; return -1; }
#define MODE va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list);

int stat64(const char *path, struct stat64 *out) { GONE(path) return REAL(stat64)(path, out); }
int lstat64(const char *path, struct stat64 *out) { GONE(path) return REAL(lstat64)(path, out); }
int fstatat64(int at, const char *path, struct stat64 *out, int flags) { GONE(path) return REAL(fstatat64)(at, path, out, flags); }
int statx(int at, const char *path, int flags, unsigned mask, struct statx *out) { GONE(path) return REAL(statx)(at, path, flags, mask, out); }
int open64(const char *path, int flags, ...) { MODE if (!(flags & O_CREAT)) GONE(path) return REAL(open64)(path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE if (!(flags & O_CREAT)) GONE(path) return REAL(openat64)(at, path, flags, mode); }
