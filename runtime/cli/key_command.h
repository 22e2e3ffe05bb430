/* key_command.h: argosy key: makes, lists and revokes API keys. */
#ifndef ARGOSY_CLI_KEY_COMMAND_H
#define ARGOSY_CLI_KEY_COMMAND_H

int key_command_main(int argc, char **argv);

#endif
