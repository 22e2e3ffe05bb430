/* check.h: ASSERT stays on in release. It states what our own code must never
 * break; it is never used on input from a client, a peer, a file or Redis. */
#ifndef ARGOSY_BASE_CHECK_H
#define ARGOSY_BASE_CHECK_H

_Noreturn void check_failed(const char *expr, const char *file, int line);

#define ASSERT(expr) ((expr) ? (void)0 : check_failed(#expr, __FILE__, __LINE__))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
