/* access.h: what is said of a request once it is over: a line in the log, its metrics. */
#ifndef ARGOSY_ROUTER_HTTP_ACCESS_H
#define ARGOSY_ROUTER_HTTP_ACCESS_H

struct request;

/* The kind of error that an HTTP status stands for, as metrics and spans name it. */
const char *access_error(int status);
/* Once, when the request ends. */
void access_end(struct request *r);

#endif
