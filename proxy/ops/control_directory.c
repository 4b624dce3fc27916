#include "proxy/ops/control_directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/ops/json_text.h"

struct errand;

/* One directory's part of it. */
struct leg {
    struct errand *errand;
    char name[64];
    uint64_t ticket;
};

/* The call, until all have reported. */
struct errand {
    struct control_call *call;
    struct directory_client *client;
    enum dir_order order;
    json_t *list;
    char error[384]; /* of the first that failed; empty: none did */
    size_t n_waiting, n;
    struct leg legs[];
};

static void
errand_free(struct errand *d)
{
    json_decref(d->list);
    free(d);
}

static void
finish(struct errand *d)
{
    if (d->error[0] != '\0')
        control_refuse(d->call, "%s", d->error);
    else
        control_answer(
            d->call,
            json_pack("{s:O}", d->order == DIR_ORDER_DUPLICATES ? "duplicates" : "looks", d->list));
    errand_free(d);
}

static void
add_look(struct errand *d, const struct leg *leg, const struct dir_report *r)
{
    json_array_append_new(d->list,
                          json_pack("{s:o, s:I, s:I, s:I}", "name", json_text_str(leg->name),
                                    "entries", (json_int_t)r->entries, "learned",
                                    (json_int_t)r->learned, "lost", (json_int_t)r->lost));
}

static void
add_duplicates(struct errand *d, const struct leg *leg, const struct dir_report *r)
{
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(
            d->list, json_pack("{s:o, s:o, s:[o, o]}", "directory", json_text_str(leg->name),
                               "address", json_text_str(r->list[i].address), "objects",
                               json_text_str(r->list[i].dns[0]), json_text_str(r->list[i].dns[1])));
}

static void
on_report(void *arg, const struct dir_report *r)
{
    struct leg *leg = arg;
    struct errand *d = leg->errand;

    if (r && r->error[0] == '\0' && d->order == DIR_ORDER_DUPLICATES)
        add_duplicates(d, leg, r);
    else if (r && r->error[0] == '\0')
        add_look(d, leg, r);
    else if (d->error[0] == '\0')
        snprintf(d->error, sizeof d->error, "directory %s: %s",
                 leg->name[0] != '\0' ? leg->name : "default", r ? r->error : "out of memory");
    if (--d->n_waiting == 0)
        finish(d);
}

static void
on_cancel(void *arg)
{
    struct errand *d = arg;

    for (size_t i = 0; i < d->n; i++)
        directory_cancel(d->client, d->legs[i].ticket);
    errand_free(d);
}

void
control_directory_order(struct directories *directories, struct directory_client *client,
                        struct control_call *call, enum dir_order order)
{
    struct dir_view view;
    struct errand *d;
    size_t most = 0;

    while (directories_view(directories, most, &view))
        most++;
    d = calloc(1, sizeof *d + most * sizeof d->legs[0]);
    if (!d) {
        control_refuse(call, "out of memory");
        return;
    }
    *d = (struct errand){.call = call, .client = client, .order = order, .list = json_array()};
    for (size_t i = 0; i < most && directories_view(directories, i, &view); i++) {
        struct leg *leg = &d->legs[d->n];

        leg->errand = d;
        span_copy(leg->name, sizeof leg->name, span_str(view.name));
        if (directory_order(client, leg->name, order, on_report, leg, &leg->ticket))
            d->n++;
    }
    d->n_waiting = d->n;
    if (d->n > 0) {
        control_defer(call, on_cancel, d);
        return;
    }
    control_refuse(
        call,
        "no directory has mode = snapshot, which this needs; posternctl lookup asks a server");
    errand_free(d);
}
