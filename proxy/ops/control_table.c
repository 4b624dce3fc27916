#include "proxy/ops/control.h"

const struct control_command control_commands[CONTROL_COUNT] = {
#define CONTROL(id, name, arguments, least, most, choices, help)                                   \
    {name, arguments, least, most, choices, help},
#include "proxy/ops/control.def"
#undef CONTROL
};

enum control_id
control_find(struct span name)
{
    enum control_id i = 0;
    while (i < CONTROL_COUNT && !span_is(name, control_commands[i].name))
        i++;
    return i;
}
