#ifndef PROXY_OPS_CONTROL_HELP_H
#define PROXY_OPS_CONTROL_HELP_H

#include <stdio.h>

/* What posternctl says about itself, made from control.def. */

#define CONTROL_DEFAULT_SOCKET "/run/postern/control.sock"

void control_help(FILE *out);
/* Completions for bash; docs/posternctl.bash is this text. */
void control_completion(FILE *out);

#endif
