/* argosy: the one command that people type. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/version.h"
#include "runtime/cli/conversation.h"
#include "runtime/cli/key_command.h"
#include "runtime/cli/top.h"
#include "runtime/cli/up.h"

struct command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"up", up_main, "start a cluster on this machine; Ctrl-C ends it"},
    {"key", key_command_main, "make, list and revoke API keys"},
    {"chat", conversation_main, "talk to an endpoint in the terminal"},
    {"top", top_main, "the pool of a router, live in the terminal"},
};

static void print_help(FILE *out)
{
    fputs("Usage: argosy COMMAND [OPTION...]\n\n", out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
    fputs("  version  print the version\n\n'argosy COMMAND --help' lists a command's options.\n",
          out);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(what, commands[i].name) != 0)
            continue;
        /* argp names the program by argv[0]. */
        char name[64];
        snprintf(name, sizeof name, "argosy %s", what);
        argv[1] = name;
        return commands[i].main(argc - 1, argv + 1);
    }
    if (!strcmp(what, "version") || !strcmp(what, "--version")) {
        puts("argosy " ARGOSY_VERSION);
        return EXIT_SUCCESS;
    }
    bool asked = !strcmp(what, "help") || !strcmp(what, "--help");
    if (*what && !asked)
        fprintf(stderr, "argosy: there is no command '%s'\n\n", what);
    print_help(asked ? stdout : stderr);
    return asked ? EXIT_SUCCESS : 2;
}
