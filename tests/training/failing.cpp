// A file layer whose n-th call fails, for tests: loaded in front of libc (LD_PRELOAD), it counts the calls that change
// files below one folder, and lets one of them fail with the error given. fail_at(0, ...) only counts.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {
char below[PATH_MAX];
long number, count;
int error;

bool fails(const char* path) {
  const size_t length = strlen(below);
  if (!length || strncmp(path, below, length)) return false;
  if (++count != number) return false;
  errno = error;
  return true;
}

bool fails(int descriptor) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return false;
  path[length] = 0;
  return fails(path);
}

template <class T>
T next(T, const char* name) {
  return reinterpret_cast<T>(dlsym(RTLD_NEXT, name));
}
}  // namespace

extern "C" {
void fail_at(long n, int with, const char* folder) {
  snprintf(below, sizeof below, "%s", folder);
  number = n, error = with, count = 0;
}
long calls() { return count; }

ssize_t write(int fd, const void* data, size_t size) {
  return fails(fd) ? -1 : next(&write, "write")(fd, data, size);
}
ssize_t writev(int fd, const iovec* data, int parts) {
  return fails(fd) ? -1 : next(&writev, "writev")(fd, data, parts);
}
int fsync(int fd) { return fails(fd) ? -1 : next(&fsync, "fsync")(fd); }
int fdatasync(int fd) { return fails(fd) ? -1 : next(&fdatasync, "fdatasync")(fd); }
int rename(const char* from, const char* to) { return fails(to) ? -1 : next(&rename, "rename")(from, to); }
int mkdir(const char* path, mode_t mode) { return fails(path) ? -1 : next(&mkdir, "mkdir")(path, mode); }

int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, int);
  va_end(more);
  return (flags & O_CREAT) && fails(path) ? -1 : next(&open64, "open64")(path, flags, mode);
}
int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = va_arg(more, int);
  va_end(more);
  return (flags & O_CREAT) && fails(path) ? -1 : next(&open, "open")(path, flags, mode);
}
}
