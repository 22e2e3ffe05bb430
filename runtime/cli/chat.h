/* chat.h: `argosy chat`: talks to an endpoint from the terminal; the answer streams. */
#ifndef ARGOSY_CLI_CHAT_H
#define ARGOSY_CLI_CHAT_H

/* argv[0] is "argosy chat". Returns the exit status. */
int chat_main(int argc, char **argv);

#endif
