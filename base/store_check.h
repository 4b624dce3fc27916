#ifndef BASE_STORE_CHECK_H
#define BASE_STORE_CHECK_H

#include "base/span.h"

/* LMDB trusts its pages: one that is damaged may crash whoever reads or writes it.  This reads a
 * file's structure before LMDB does, as version 0.9 writes it (data version 1): that pages, nodes,
 * trees and the list of free pages are what LMDB takes for granted.  What rows mean is their
 * owner's business.  Pure. */

/* 0, MDB_CORRUPTED, or ENOMEM.  FILE is the whole file, and has no writer meanwhile. */
int store_check(struct span file);
/* The same for the two pages at the beginning alone: without these the file cannot be opened. */
int store_check_metas(struct span file);

#endif
