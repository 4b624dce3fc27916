#ifndef PROXY_OPS_CHOICE_WORDS_H
#define PROXY_OPS_CHOICE_WORDS_H

/* choice_words_TYPE[]: the configuration's words for the members of enum settings_TYPE. */

#define CHOICE_BEGIN(type, tag)                                                                    \
    __attribute__((unused)) static const char *const choice_words_##type[] = {
#define CHOICE(type, id, word) word,
/* clang-format off */
#define CHOICE_END(type) };
/* clang-format on */
#include "conf/choice.def"
#undef CHOICE_BEGIN
#undef CHOICE
#undef CHOICE_END

#endif
