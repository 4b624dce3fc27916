#define _GNU_SOURCE /* fmemopen */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/settings.h"

/* Bytes as a configuration: conf/ini_reader, value, settings, settings_table, check. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What was taken holds together. */
static void
use(struct settings *st)
{
    char names[512];

    for (size_t i = 0; i < st->n_domains; i++) {
        const struct settings_domain *d = &st->domains[i];
        struct span name = span_str(d->name);
        if (settings_domain_for(st, name) != d || d->downstream_index >= st->n_downstreams)
            abort();
        for (size_t k = 0; k < d->n_directory_index; k++)
            if (d->directory_index[k] >= st->n_directories)
                abort();
        if (settings_remote_domain_for(st, name) == NULL)
            abort();
    }
    for (size_t i = 0; i < st->n_downstreams; i++)
        if (st->downstreams[i].hosts.n == 0)
            abort();
    if (settings_keep_fixed(st, st, names, sizeof(names)))
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);
    FILE *in = NULL;
    struct faults *f = faults_new();

    if (text != NULL && f != NULL) {
        memcpy(text, data, n);
        in = n > 0 ? fmemopen(text, n, "r") : fopen("/dev/null", "r");
    }
    if (in != NULL) {
        struct settings *st = settings_read(in, "f", f);
        if ((st == NULL) != (faults_errors(f) > 0))
            abort();
        if (st != NULL)
            use(st);
        settings_unref(st);
        fclose(in);
    }
    faults_free(&f);
    free(text);
    return 0;
}
