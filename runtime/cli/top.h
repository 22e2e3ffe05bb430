/* top.h: `argosy top`: the pool live in the terminal. */
#ifndef ARGOSY_CLI_TOP_H
#define ARGOSY_CLI_TOP_H

int top_main(int argc, char **argv);

#endif
