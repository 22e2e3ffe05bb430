/* up.h: `argosy up`: a whole cluster on this machine, until Ctrl-C. */
#ifndef ARGOSY_CLI_UP_H
#define ARGOSY_CLI_UP_H

/* argv[0] is "argosy up". Returns the exit status. */
int up_main(int argc, char **argv);

#endif
