#include "proxy/ops/control_help.h"

#include "proxy/ops/control.h"

void
control_help(FILE *out)
{
    fputs("usage: posternctl [-s SOCKET] [--json] COMMAND [ARGUMENT...]\n\ncommands:\n", out);
    for (size_t i = 0; i < CONTROL_COUNT; i++) {
        const struct control_command *c = &control_commands[i];
        fprintf(out, "  %s%s%s\n      %s\n", c->name, *c->arguments ? " " : "", c->arguments,
                c->help);
    }
    fputs("\noptions:\n"
          "  -s, --socket SOCKET   the daemon's control socket (" CONTROL_DEFAULT_SOCKET ")\n"
          "  -j, --json            print the daemon's answer as it is, one JSON object per line\n"
          "      --completion      print completions for bash\n"
          "  -h, --help            this\n"
          "  -V, --version         the version\n"
          "\nExit status: 0 done, 1 the daemon said no, 2 usage, 3 no daemon.\n",
          out);
}

void
control_completion(FILE *out)
{
    fputs("# bash completion for posternctl; made by posternctl --completion\n"
          "_posternctl()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} command='' i word words=''\n"
          "    COMPREPLY=()\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        word=${COMP_WORDS[i]}\n"
          "        case $word in\n"
          "        -s | --socket) ((i++)) ;;\n"
          "        -*) ;;\n"
          "        *) command=$word && break ;;\n"
          "        esac\n"
          "    done\n"
          "    case ${COMP_WORDS[COMP_CWORD - 1]} in\n"
          "    -s | --socket)\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "        return\n"
          "        ;;\n"
          "    esac\n"
          "    if [[ -z $command ]]; then\n"
          "        words=\"",
          out);
    for (size_t i = 0; i < CONTROL_COUNT; i++)
        fprintf(out, "%s ", control_commands[i].name);
    fputs("--socket --json --help --version\"\n"
          "    elif ((i == COMP_CWORD - 1)); then\n"
          "        case $command in\n",
          out);
    for (size_t i = 0; i < CONTROL_COUNT; i++) {
        if (*control_commands[i].choices)
            fprintf(out, "        %s) words=\"%s\" ;;\n", control_commands[i].name,
                    control_commands[i].choices);
    }
    fputs("        esac\n"
          "    elif [[ $command == directory && ${COMP_WORDS[COMP_CWORD - 1]} == sync ]]; then\n"
          "        words=--force\n"
          "    fi\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "}\n"
          "complete -F _posternctl posternctl\n",
          out);
}
