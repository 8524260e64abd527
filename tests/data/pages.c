
/* A network file system's client in each process: what it writes it keeps in whole pages of 4 KiB, as it has read them first, and
   sends them back when a file is flushed or closed. So a page that two have written at a time loses what one of them wrote. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#define PAGE 4096
#define PAGES 65536
#define REAL(f) ((__typeof__(&f))dlsym(RTLD_NEXT, #f))
static struct page { dev_t dev; ino_t ino; off_t at; off_t end; char *bytes; } kept[PAGES];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ours(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, "shardloom-partial/") && (strstr(path, ".safetensors") || strstr(path, ".ckpt"));
}
static struct page *page(int fd, const struct stat *s, off_t at) {
  for (int i = 0; i < count; i++)
    if (kept[i].ino == s->st_ino && kept[i].dev == s->st_dev && kept[i].at == at && kept[i].bytes) return &kept[i];
  if (count == PAGES) abort();
  struct page *p = &kept[count++];
  p->dev = s->st_dev; p->ino = s->st_ino; p->at = at; p->bytes = calloc(1, PAGE);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  FILE *f = fopen(path, "r");
  if (!f) abort();
  fseek(f, at, SEEK_SET);
  p->end = at + fread(p->bytes, 1, PAGE, f);
  fclose(f);
  return p;
}
ssize_t pwrite64(int fd, const void *b, size_t n, off_t at) {
  struct stat s;
  if (!ours(fd) || fstat(fd, &s)) return REAL(pwrite64)(fd, b, n, at);
  pthread_mutex_lock(&lock);
  for (size_t done = 0; done < n;) {
    off_t here = at + done, first = here / PAGE * PAGE;
    size_t part = first + PAGE - here;
    if (part > n - done) part = n - done;
    struct page *p = page(fd, &s, first);
    memcpy(p->bytes + (here - first), (const char *)b + done, part);
    if (p->end < here + (off_t)part) p->end = here + part;
    done += part;
  }
  pthread_mutex_unlock(&lock);
  return n;
}
static void send_back(int fd) {
  struct stat s;
  if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY || fstat(fd, &s) || !S_ISREG(s.st_mode)) return;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++) {
    struct page *p = &kept[i];
    if (p->ino != s.st_ino || p->dev != s.st_dev || !p->bytes) continue;
    if (REAL(pwrite64)(fd, p->bytes, p->end - p->at, p->at) < 0) abort();
    free(p->bytes); p->bytes = 0; p->ino = 0;
  }
  pthread_mutex_unlock(&lock);
}
int fsync(int fd) { send_back(fd); return REAL(fsync)(fd); }
int fdatasync(int fd) { send_back(fd); return REAL(fdatasync)(fd); }
int close(int fd) { if (count) send_back(fd); return REAL(close)(fd); }
