#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A fuzzer's inputs once more, without a fuzzer: every file of each directory that is named. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
die(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(EXIT_FAILURE);
}

static void
replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data;
    long n = -1;

    if (f && fseek(f, 0, SEEK_END) == 0)
        n = ftell(f);
    if (n < 0)
        die(path);
    rewind(f);
    /* Just as large as the input, so that a sanitizer sees what is read beyond it. */
    data = malloc((size_t)n);
    if ((n > 0 && !data) || fread(data, 1, (size_t)n, f) != (size_t)n)
        die(path);
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)n);
    free(data);
}

static size_t
replay_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    size_t n = 0;

    if (!directory)
        die(path);
    while ((entry = readdir(directory))) {
        char file[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        replay_file(file);
        n++;
    }
    closedir(directory);
    return n;
}

int
main(int argc, char **argv)
{
    size_t n = 0;

    for (int i = 1; i < argc; i++)
        n += replay_directory(argv[i]);
    printf("%zu inputs\n", n);
    return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE; /* nothing replayed is nothing tested */
}
