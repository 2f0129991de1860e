/* What a disk must keep: at each sync of a file its content, at each sync of a folder its list of names.
 *
 * Preloaded under a run. $POWER_ROOT is the folder to watch, $POWER_DISK where the durable copies go:
 *   $POWER_DISK/file-<device>-<inode>    the content at the last sync
 *   $POWER_DISK/names-<device>-<inode>   "<device>-<inode> <name>" a line, at the folder's last sync
 * With $POWER_CUT_AT the process is killed as that many-th sync begins, counted from 1.
 * A copy takes its place by a rename, so that a kill in the middle leaves the one before.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int watched(int descriptor) {
    char link[64], path[4096];
    const char *root = getenv("POWER_ROOT");
    if (!root || !getenv("POWER_DISK")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t size = strlen(root);
    return !strncmp(path, root, size) && (path[size] == '/' || !path[size]);
}

static void names_of(int descriptor, char *name, char *part, const char *kind, const struct stat *found) {
    const char *disk = getenv("POWER_DISK");
    snprintf(name, 4096, "%s/%s-%lu-%lu", disk, kind, (unsigned long)found->st_dev, (unsigned long)found->st_ino);
    snprintf(part, 4096, "%s/part-%ld-%d", disk, (long)syscall(SYS_gettid), descriptor);
}

/* Read through the given descriptor: opening the file again and closing it would drop the locks that SQLite holds. */
static void keep_file(int descriptor, const struct stat *found) {
    char name[4096], part[4096], buffer[65536];
    names_of(descriptor, name, part, "file", found);
    int copy = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t got;
    while (copy >= 0 && (got = pread(descriptor, buffer, sizeof buffer, at)) > 0) {
        if (write(copy, buffer, got) != got) abort();
        at += got;
    }
    if (copy < 0 || got < 0) {
        /* Opened only to write: read by another way, which is not SQLite's. */
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        int again = open(link, O_RDONLY);
        if (copy < 0 || again < 0) abort();
        for (at = 0; (got = pread(again, buffer, sizeof buffer, at)) > 0; at += got)
            if (write(copy, buffer, got) != got) abort();
        close(again);
    }
    close(copy);
    if (rename(part, name)) abort();
}

static void keep_names(int descriptor, const struct stat *found) {
    char name[4096], part[4096], link[64];
    names_of(descriptor, name, part, "names", found);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    DIR *folder = opendir(link);
    FILE *copy = fopen(part, "w");
    if (!folder || !copy) abort();
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat inside;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (fstatat(descriptor, entry->d_name, &inside, AT_SYMLINK_NOFOLLOW)) continue;
        fprintf(copy, "%lu-%lu %s\n", (unsigned long)inside.st_dev, (unsigned long)inside.st_ino, entry->d_name);
    }
    closedir(folder);
    fclose(copy);
    if (rename(part, name)) abort();
}

static int begun;

/* The power goes as a sync begins: nothing of it reaches the disk. */
static void cut_at(int descriptor) {
    const char *at = getenv("POWER_CUT_AT");
    if (at && watched(descriptor) && __sync_add_and_fetch(&begun, 1) == atoi(at)) kill(getpid(), SIGKILL);
}

static int synced(int descriptor, const char *call) {
    cut_at(descriptor);
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    int result = sync(descriptor), error = errno;
    struct stat found;
    if (!result && watched(descriptor) && !fstat(descriptor, &found)) {
        if (S_ISDIR(found.st_mode)) keep_names(descriptor, &found);
        else if (S_ISREG(found.st_mode)) keep_file(descriptor, &found);
    }
    errno = error;
    return result;
}

int fsync(int descriptor) { return synced(descriptor, "fsync"); }

int fdatasync(int descriptor) { return synced(descriptor, "fdatasync"); }
