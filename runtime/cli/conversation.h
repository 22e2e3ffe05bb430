/* conversation.h: `argosy chat`: talks to an endpoint from the terminal; the answer streams. */
#ifndef ARGOSY_CLI_CONVERSATION_H
#define ARGOSY_CLI_CONVERSATION_H

/* argv[0] is "argosy chat". Returns the exit status. */
int conversation_main(int argc, char **argv);

#endif
