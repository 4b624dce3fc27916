#ifndef PROXY_OPS_METRICS_H
#define PROXY_OPS_METRICS_H

#include <stdint.h>

#include "ldap/directory.h"
#include "policy/decide.h"
#include "policy/status_code.h"

/* The process's counters.  Relaxed atomics without locks: any thread counts, any thread reads, and
 * a reader may see one event counted in one family and not yet in another.  What is a state and not
 * a count (blocks, servers that are up) is not kept here: whoever shows it asks its owner. */

struct metrics;

/* The sets of metrics_label.def. */
/* clang-format off */
#define METRICS_BEGIN(SET, set) enum metrics_##set {
#define METRICS_LABEL(SET, id, text) METRICS_##SET##_##id,
#define METRICS_END(SET, set) METRICS_##SET##_COUNT };
/* clang-format on */
#include "proxy/ops/metrics_label.def"
#undef METRICS_BEGIN
#undef METRICS_LABEL
#undef METRICS_END

/* The rows of status_code.def. */
enum {
#define STATUS_CODE(code, marker, title, cause, remedy) +1
    METRICS_CODES = 0
#include "policy/status_code.def"
#undef STATUS_CODE
};

/* The label's text: "accept", "would-reject", ... (also the log's words). */
const char *metrics_refusal_text(enum metrics_refusal refusal);
const char *metrics_leg_text(enum metrics_leg leg);
const char *metrics_tls_text(enum metrics_tls version);
const char *metrics_verdict_text(enum metrics_verdict verdict);
const char *metrics_status_text(enum metrics_status status);
const char *metrics_source_text(enum metrics_source source);
const char *metrics_result_text(enum metrics_result result);

/* All zero. NULL when memory is out. */
struct metrics *metrics_new(void);
void metrics_free(struct metrics **m); /* clears *M; NULL is fine */

/* A client's connection was accepted by the kernel, whatever becomes of it. */
void metrics_connection(struct metrics *m);
/* ... and turned away, before or instead of the greeting. */
void metrics_refused(struct metrics *m, enum metrics_refusal reason);
/* A TLS handshake was completed; VERSION is SSL_version's. */
void metrics_tls(struct metrics *m, enum metrics_leg leg, int version);
/* One RCPT was answered, or a MAIL refused. */
void metrics_recipient(struct metrics *m, enum metrics_verdict verdict, enum policy_reason reason);
/* The client was answered to the end of its data; SIZE in octets counts for a delivered one. */
void metrics_message(struct metrics *m, enum metrics_status status, uint64_t size);
/* A recipient was looked up in NS nanoseconds.  DIR_PENDING is no answer and counts nothing. */
void metrics_lookup(struct metrics *m, enum dir_source source, enum dir_status status, int64_t ns);
/* The same for an answer by the downstream (recipients = downstream, marks). */
void metrics_lookup_downstream(struct metrics *m, enum dir_status status, int64_t ns);
/* From the last octet of a message to our reply. */
void metrics_delivery_ns(struct metrics *m, int64_t ns);
/* The directory knew a recipient, the downstream did not. */
void metrics_drift(struct metrics *m);

/* A client was given a refusal that CODE (status_code_find of the reply) explains; NULL: none does.
 */
void metrics_code(struct metrics *m, const struct status_code *code);

/* A value: all counters at about one moment, for whoever writes them down. */
#define METRICS_BUCKETS 16

struct metrics_histogram {
    uint64_t buckets[METRICS_BUCKETS]; /* not cumulative; the last is +Inf */
    uint64_t sum_ns;
};

struct metrics_counts {
    uint64_t connections;
    uint64_t refused[METRICS_REFUSAL_COUNT];
    uint64_t tls[METRICS_LEG_COUNT][METRICS_TLS_COUNT];
    uint64_t recipients[METRICS_VERDICT_COUNT][POLICY_REASON_COUNT];
    uint64_t messages[METRICS_STATUS_COUNT];
    uint64_t message_bytes;
    uint64_t lookups[METRICS_SOURCE_COUNT][METRICS_RESULT_COUNT];
    struct metrics_histogram lookup, delivery;
    uint64_t drift;
    uint64_t codes[METRICS_CODES]; /* as status_code_at has them */
};

void metrics_read(const struct metrics *m, struct metrics_counts *out);
uint64_t metrics_recipients_sum(const struct metrics_counts *c, enum metrics_verdict verdict);
uint64_t metrics_histogram_count(const struct metrics_histogram *h);
/* The upper limits of the buckets but the last, in nanoseconds. */
extern const int64_t metrics_lookup_limits_ns[METRICS_BUCKETS - 1];
extern const int64_t metrics_delivery_limits_ns[METRICS_BUCKETS - 1];

#endif
