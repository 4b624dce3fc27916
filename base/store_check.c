#include "base/store_check.h"

#include <errno.h>
#include <lmdb.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The names are ours, the layout is that of mdb.c. */
_Static_assert(MDB_VERSION_MAJOR == 0 && MDB_VERSION_MINOR == 9,
               "another format than is read here");

#define MAGIC        0xBEEFC0DEu
#define DATA_VERSION 1u
#define FIRST_PAGE   2u /* the first two are metas */
#define NO_PAGE      SIZE_MAX
#define PAGE_MAX     65536u
#define MAP_MAX      ((size_t)1 << 40)
#define KEY_MAX      511u
#define DEPTH_MAX    32u
#define TABLE_FLAGS  0xffu /* beside the environment's */

enum {
    PAGE_BRANCH = 1,
    PAGE_LEAF = 2,
    PAGE_OVERFLOW = 4,
    PAGE_META = 8,
    PAGE_DIRTY = 16, /* on disk only in a part of a page, where it says nothing */
    PAGE_FIXED = 32,
    PAGE_SUB = 64
};
enum { NODE_OVERFLOW = 1, NODE_TREE = 2, NODE_DUPLICATES = 4 };

struct page {
    size_t number;
    uint16_t width; /* of a value, if it has nothing else */
    uint16_t flags;
    uint16_t lower, upper; /* the free space; one number of pages, if it is an overflow */
};

struct node {
    uint32_t size; /* of the data; in a branch the lower half of the child's number */
    uint16_t flags;
    uint16_t key_size;
};

struct tree {
    uint32_t width; /* as of a page; of the tree of free pages: the size of a page */
    uint16_t flags, depth;
    size_t branches, leaves, overflows, entries, root;
};

struct meta {
    struct page page;
    uint32_t magic, version;
    void *address;
    size_t map_size;
    struct tree free, names;
    size_t last_page, transaction;
};

struct check {
    const uint8_t *file;
    size_t page_size, n_pages; /* that are there */
    size_t last_page, transaction;
    uint8_t *taken; /* a bit for each page */
};

enum kind { KIND_FREE, KIND_NAMES, KIND_TABLE, KIND_VALUES };

struct walk {
    struct check *c;
    enum kind kind;
    const struct tree *tree;
    struct tree found;  /* what there is of it */
    struct span last;   /* key; NULL: there was none */
    bool is_below_next; /* the last one is a branch's: the next may be the same */
};

/* Trees in trees: of names, of a table, of the values of a key; DEPTH_MAX levels each. */
static bool walk_tree(struct check *c, enum kind kind, const struct tree *tree);

static bool
take_page(struct check *c, size_t number)
{
    if (number < FIRST_PAGE || number > c->last_page ||
        (c->taken[number / 8] & 1u << number % 8) != 0)
        return false;
    c->taken[number / 8] |= (uint8_t)(1u << number % 8);
    return true;
}

/* A page, or N of an overflow, of which none is anywhere else. */
static const uint8_t *
take_pages(struct check *c, size_t number, size_t n)
{
    if (number >= c->n_pages || n > c->n_pages - number)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!take_page(c, number + i))
            return NULL;
    return c->file + number * c->page_size;
}

static int
compare(enum kind kind, struct span a, struct span b)
{
    size_t x, y;

    if (kind == KIND_FREE) {
        memcpy(&x, a.p, sizeof x);
        memcpy(&y, b.p, sizeof y);
        return x < y ? -1 : x > y;
    }
    int difference = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return difference != 0 ? difference : a.n < b.n ? -1 : a.n > b.n;
}

/* Does the key of N octets at P follow the one before it? */
static bool
follows(struct walk *w, const uint8_t *p, size_t n, bool is_branch)
{
    struct span key = span_of((const char *)p, n);

    if (n == 0 || (w->kind == KIND_FREE && n != sizeof(size_t)))
        return false;
    int difference = w->last.p != NULL ? compare(w->kind, w->last, key) : -1;
    bool may_be_same = w->is_below_next;
    w->last = key;
    w->is_below_next = is_branch;
    return difference < 0 || (difference == 0 && may_be_same);
}

/* Values of one width, one after the other, in a page or a part of one, which has SIZE octets. */
static bool
walk_values(struct walk *w, const uint8_t *page, size_t size)
{
    struct page head;
    const uint8_t *value = page + sizeof head;

    memcpy(&head, page, sizeof head);
    if (head.lower <= sizeof head || head.lower % 2 != 0 || head.upper < head.lower ||
        head.upper > size || head.width == 0 || head.width > KEY_MAX)
        return false;
    size_t n = (head.lower - sizeof head) / 2, octets = n * head.width;
    if (octets > size - sizeof head ||
        (size_t)(head.upper - head.lower) != size - sizeof head - octets)
        return false;
    for (size_t i = 0; i < n; i++, value += head.width)
        if (!follows(w, value, head.width, false))
            return false;
    w->found.entries += n;
    return true;
}

/* How many octets it takes in a page with such a HEAD. */
static size_t
node_size(const struct page *head, const struct node *node)
{
    size_t n = sizeof *node + node->key_size;

    if ((head->flags & PAGE_LEAF) != 0)
        n += (node->flags & NODE_OVERFLOW) != 0 ? sizeof(size_t) : node->size;
    return n + n % 2;
}

/* Node I of PAGE, which is SIZE octets large, all of it within the page. */
static bool
read_node(const uint8_t *page, size_t size, size_t i, struct node *node, const uint8_t **key)
{
    struct page head;
    uint16_t at;

    memcpy(&head, page, sizeof head);
    memcpy(&at, page + sizeof head + 2 * i, sizeof at);
    if (at < head.upper || at % 2 != 0 || at > size - sizeof *node)
        return false;
    memcpy(node, page + at, sizeof *node);
    *key = page + at + sizeof *node;
    return node->key_size <= KEY_MAX && node_size(&head, node) <= size - at;
}

/* The nodes of a page lie in it, none in another. */
static bool
has_nodes(const struct check *c, const uint8_t *page, const struct page *head, size_t *n)
{
    uint8_t taken[PAGE_MAX / 2 / 8] = {0};
    struct node node;
    const uint8_t *key;

    if (head->lower < sizeof *head || head->lower % 2 != 0 || head->upper < head->lower ||
        head->upper > c->page_size)
        return false;
    *n = (head->lower - sizeof *head) / 2;
    for (size_t i = 0; i < *n; i++) {
        if (!read_node(page, c->page_size, i, &node, &key))
            return false;
        size_t at = (size_t)(key - page) - sizeof node;
        for (size_t end = at + node_size(head, &node); at < end; at += 2) {
            if ((taken[at / 16] & 1u << at / 2 % 8) != 0)
                return false;
            taken[at / 16] |= (uint8_t)(1u << at / 2 % 8);
        }
    }
    return true;
}

/* What a transaction freed: how many pages, and then they, the largest first. */
static bool
is_free_list(struct check *c, const uint8_t *key, const uint8_t *p, size_t n)
{
    size_t transaction, count, number, last = SIZE_MAX;

    memcpy(&transaction, key, sizeof transaction);
    if (transaction == 0 || transaction > c->transaction || n < sizeof count)
        return false;
    memcpy(&count, p, sizeof count);
    if (count > n / sizeof count - 1)
        return false;
    for (size_t i = 1; i <= count; i++) {
        memcpy(&number, p + i * sizeof number, sizeof number);
        if (number >= last || !take_page(c, number))
            return false;
        last = number;
    }
    return true;
}

/* Data of SIZE octets on pages of its own, of which it may have needed more before; NULL if they
 * are not that. */
static const uint8_t *
read_overflow(struct walk *w, const uint8_t *data, size_t size)
{
    const uint8_t *page;
    struct page head;
    uint32_t n;
    size_t number;

    memcpy(&number, data, sizeof number);
    if (number >= w->c->n_pages)
        return NULL;
    page = w->c->file + number * w->c->page_size;
    memcpy(&head, page, sizeof head);
    memcpy(&n, page + offsetof(struct page, lower), sizeof n);
    w->found.overflows += n;
    return head.number == number && head.flags == PAGE_OVERFLOW &&
                   sizeof head + size <= n * w->c->page_size && take_pages(w->c, number, n)
               ? page + sizeof head
               : NULL;
}

/* NOLINTBEGIN(misc-no-recursion) */

/* The values of one key: in the node, or in a tree of their own. */
static bool
walk_duplicates(struct walk *w, const struct node *node, const uint8_t *data)
{
    struct walk values = {.c = w->c, .kind = KIND_VALUES};
    struct page part;
    struct tree tree;

    if (w->kind != KIND_TABLE || (w->tree->flags & MDB_DUPSORT) == 0)
        return false;
    if ((node->flags & NODE_TREE) != 0) {
        if (node->size != sizeof tree)
            return false;
        memcpy(&tree, data, sizeof tree);
        w->found.entries += tree.entries;
        return tree.flags == MDB_DUPFIXED && walk_tree(w->c, KIND_VALUES, &tree);
    }
    if (node->size < sizeof part)
        return false;
    memcpy(&part, data, sizeof part);
    if ((part.flags & ~PAGE_DIRTY) != (PAGE_SUB | PAGE_LEAF | PAGE_FIXED) ||
        !walk_values(&values, data, node->size))
        return false;
    w->found.entries += values.found.entries;
    return true;
}

static bool
walk_named(struct walk *w, const struct node *node, const uint8_t *data)
{
    struct tree tree;

    if (w->kind != KIND_NAMES || node->size != sizeof tree)
        return false;
    memcpy(&tree, data, sizeof tree);
    w->found.entries++;
    return (tree.flags == 0 || tree.flags == (MDB_DUPSORT | MDB_DUPFIXED)) &&
           walk_tree(w->c, KIND_TABLE, &tree);
}

static bool
walk_row(struct walk *w, const struct node *node, const uint8_t *key)
{
    const uint8_t *data = key + node->key_size;

    if (!follows(w, key, node->key_size, false))
        return false;
    if ((node->flags & NODE_DUPLICATES) != 0)
        return (node->flags & ~(NODE_DUPLICATES | NODE_TREE)) == 0 &&
               walk_duplicates(w, node, data);
    if (node->flags == NODE_TREE)
        return walk_named(w, node, data);
    if (node->flags == NODE_OVERFLOW)
        data = read_overflow(w, data, node->size);
    else if (node->flags != 0)
        return false;
    w->found.entries++;
    return data != NULL && (w->kind != KIND_FREE || is_free_list(w->c, key, data, node->size));
}

static bool
walk_leaf(struct walk *w, const uint8_t *page, const struct page *head)
{
    const uint8_t *key;
    struct node node;
    size_t n;

    w->found.leaves++;
    if (w->kind == KIND_VALUES)
        return head->flags == (PAGE_LEAF | PAGE_FIXED) && head->width == w->tree->width &&
               walk_values(w, page, w->c->page_size);
    if (head->flags != PAGE_LEAF || !has_nodes(w->c, page, head, &n))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_node(page, w->c->page_size, i, &node, &key) || !walk_row(w, &node, key))
            return false;
    return true;
}

/* The pages at and below NUMBER, which is at LEVEL of the tree, the root's being 1. */
static bool
walk_page(struct walk *w, size_t number, unsigned level)
{
    const uint8_t *page = take_pages(w->c, number, 1), *key;
    struct page head;
    struct node node;
    size_t n;

    if (page == NULL)
        return false;
    memcpy(&head, page, sizeof head);
    if (head.number != number)
        return false;
    if (level == w->tree->depth)
        return walk_leaf(w, page, &head);
    w->found.branches++;
    if (head.flags != PAGE_BRANCH || !has_nodes(w->c, page, &head, &n) || n < 2)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_node(page, w->c->page_size, i, &node, &key) ||
            (i > 0 && !follows(w, key, node.key_size, true)) ||
            !walk_page(w, (size_t)node.flags << 32 | node.size, level + 1))
            return false;
    return true;
}

static bool
walk_tree(struct check *c, enum kind kind, const struct tree *tree)
{
    struct walk w = {.c = c, .kind = kind, .tree = tree};

    if (tree->root != NO_PAGE &&
        (tree->depth == 0 || tree->depth > DEPTH_MAX || !walk_page(&w, tree->root, 1)))
        return false;
    return (tree->root != NO_PAGE || tree->depth == 0) && w.found.branches == tree->branches &&
           w.found.leaves == tree->leaves && w.found.overflows == tree->overflows &&
           w.found.entries == tree->entries;
}

/* NOLINTEND(misc-no-recursion) */

/* Meta I of the two, at AT.  LMDB takes turns: it finds the newest transaction by its number. */
static bool
read_meta(struct span file, unsigned i, size_t at, struct meta *m)
{
    if (file.n < sizeof *m || at > file.n - sizeof *m)
        return false;
    memcpy(m, file.p + at, sizeof *m);
    size_t size = m->free.width;
    return (m->page.flags & PAGE_META) != 0 && m->magic == MAGIC && m->version == DATA_VERSION &&
           size >= 512 && size <= PAGE_MAX && (size & (size - 1)) == 0 && m->map_size <= MAP_MAX &&
           m->last_page < m->map_size / size && (m->free.flags & TABLE_FLAGS) == MDB_INTEGERKEY &&
           m->names.flags == 0 && (m->transaction % 2 == i || m->transaction == 0);
}

/* The newer one of the two. */
static bool
read_metas(struct span file, struct meta *newest)
{
    struct meta other;

    if (!read_meta(file, 0, 0, newest) || !read_meta(file, 1, newest->free.width, &other) ||
        other.free.width != newest->free.width)
        return false;
    if (other.transaction > newest->transaction)
        *newest = other;
    return true;
}

int
store_check_metas(struct span file)
{
    struct meta m;

    return read_metas(file, &m) ? 0 : MDB_CORRUPTED;
}

int
store_check(struct span file)
{
    struct meta m;

    if (!read_metas(file, &m))
        return MDB_CORRUPTED;
    struct check c = {.file = (const uint8_t *)file.p,
                      .page_size = m.free.width,
                      .n_pages = file.n / m.free.width,
                      .last_page = m.last_page,
                      .transaction = m.transaction,
                      .taken = calloc(m.last_page / 8 + 1, 1)};
    if (c.taken == NULL)
        return ENOMEM;
    bool is_sound = walk_tree(&c, KIND_NAMES, &m.names) && walk_tree(&c, KIND_FREE, &m.free);
    free(c.taken);
    return is_sound ? 0 : MDB_CORRUPTED;
}
