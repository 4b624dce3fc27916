#include "proxy/ops/control_explain.h"

#include "policy/status_code.h"
#include "proxy/ops/json_text.h"

json_t *
control_explain(const char *text)
{
    const struct status_code *c = status_code_find(span_str(text));
    if (!c)
        return json_pack("{s:b, s:o}", "ok", 0, "error",
                         json_sprintf("not a known status code; codes look like 5.1.1 or 550"));
    return json_pack("{s:b, s:s, s:s, s:s, s:s, s:s, s:s}", "ok", 1, "code", c->code, "class",
                     status_code_class(c->code), "marker", c->marker, "title", c->title, "cause",
                     c->cause, "remedy", c->remedy);
}
