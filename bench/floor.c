/* The floor of a job: just its reads and writes, by as many processes, with no thought between them.
 *
 *   floor PROCESSES OUT < list          a line a file: "r BYTES PATH" is read, "w BYTES PATH" written below OUT
 *   floor rate read|write DEPTH FILE... the rate of a disk past the page cache: DEPTH processes, calls of 4 MiB
 *
 * All files of a kind stand end to end; each process has an equal share of both, and takes a piece of what is
 * read before each piece that it writes. Files have their full length before. Prints the seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, DIRECT = 4 << 20 };

struct file {
    char *path;
    long long begin, end;
};
struct files {
    struct file *all;
    int count;
    long long bytes;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void add(struct files *files, const char *path, long long bytes) {
    files->all = realloc(files->all, (files->count + 1) * sizeof *files->all);
    files->all[files->count++] = (struct file){strdup(path), files->bytes, files->bytes + bytes};
    files->bytes += bytes;
}

/* Moves bytes from..to of the files through the buffer, a call a file. */
static void move(const struct files *files, long long from, long long to, char *buffer, int writes) {
    static int at[2], open_file[2] = {-1, -1};
    while (from < to) {
        int *i = &at[writes];
        while (from < files->all[*i].begin || from >= files->all[*i].end) {
            *i = (*i + 1) % files->count;
            if (open_file[writes] >= 0) close(open_file[writes]);
            open_file[writes] = -1;
        }
        const struct file *file = &files->all[*i];
        if (open_file[writes] < 0) {
            open_file[writes] = open(file->path, writes ? O_WRONLY : O_RDONLY);
            if (open_file[writes] < 0) fail(file->path);
        }
        long long end = to < file->end ? to : file->end;
        size_t length = end - from;
        ssize_t done = writes ? pwrite(open_file[writes], buffer, length, from - file->begin)
                              : pread(open_file[writes], buffer, length, from - file->begin);
        if (done <= 0) fail(file->path);
        from += done;
    }
}

static void work(const struct files *reads, const struct files *writes, int index, int processes) {
    char *buffer = aligned_alloc(4096, PIECE);
    if (!buffer) fail("memory");
    memset(buffer, 1, PIECE);
    long long read_at = reads->bytes * index / processes, read_end = reads->bytes * (index + 1) / processes;
    long long at = writes->bytes * index / processes, end = writes->bytes * (index + 1) / processes;
    long long begin = at, read_begin = read_at;
    while (at < end) {
        long long next = at + PIECE < end ? at + PIECE : end;
        long long due = read_begin + (long long)((double)(read_end - read_begin) * (next - begin) / (end - begin));
        while (read_at < due) {
            long long piece = read_at + PIECE < due ? read_at + PIECE : due;
            move(reads, read_at, piece, buffer, 0);
            read_at = piece;
        }
        move(writes, at, next, buffer, 1);
        at = next;
    }
}

static void create(const struct file *file) {
    char *path = strdup(file->path);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0777) && errno != EEXIST) fail(path);
        *slash = '/';
    }
    int out = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (out < 0) fail(path);
    struct statfs system;
    fstatfs(out, &system);
    long long bytes = file->end - file->begin;
    int in_memory = system.f_type == 0x01021994;
    if (bytes > 0 && (in_memory || fallocate(out, 0, 0, bytes)) && ftruncate(out, bytes)) fail(path);
    close(out);
    free(path);
}

static void wait_all(void) {
    int status, bad = 0;
    while (wait(&status) > 0) bad |= status;
    if (bad) exit(1);
}

static int rate(int count, char **values) {
    int writes = !strcmp(values[0], "write"), depth = atoi(values[1]), files = count - 2;
    double start = now();
    for (int index = 0; index < depth; index++) {
        if (fork()) continue;
        char *buffer = aligned_alloc(4096, DIRECT);
        if (!buffer) fail("memory");
        memset(buffer, 1, DIRECT);
        for (int number = 0; number < files; number++) {
            const char *path = values[2 + number];
            int file = open(path, (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
            struct stat stat;
            if (file < 0 || fstat(file, &stat)) fail(path);
            for (long long at = (long long)index * DIRECT; at < stat.st_size; at += (long long)depth * DIRECT) {
                /* Whole pieces only: the end of a file may not be one. */
                if (writes && at + DIRECT > stat.st_size) break;
                ssize_t done = writes ? pwrite(file, buffer, DIRECT, at) : pread(file, buffer, DIRECT, at);
                if (done < 0) fail(path);
            }
            if (writes && index == 0) fdatasync(file);
            close(file);
        }
        exit(0);
    }
    wait_all();
    printf("%.6f\n", now() - start);
    return 0;
}

int main(int count, char **values) {
    if (count > 4 && !strcmp(values[1], "rate")) return rate(count - 2, values + 2);
    if (count != 3) return 2;
    int processes = atoi(values[1]);
    struct files reads = {0}, writes = {0};
    char kind, path[4096], below[8300];
    long long bytes;
    while (scanf(" %c %lld %4095[^\n]", &kind, &bytes, path) == 3) {
        if (kind == 'r') {
            add(&reads, path, bytes);
            continue;
        }
        snprintf(below, sizeof below, "%s/%s", values[2], path);
        add(&writes, below, bytes);
    }
    double start = now();
    for (int number = 0; number < writes.count; number++) create(&writes.all[number]);
    for (int index = 0; index < processes; index++) {
        if (fork()) continue;
        work(&reads, &writes, index, processes);
        exit(0);
    }
    wait_all();
    printf("%.6f\n", now() - start);
    return 0;
}
