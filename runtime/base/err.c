#include "runtime/base/err.h"

#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        e->code = code;
        vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
        va_end(ap);
    }
    return code;
}

int err_sys(struct err *e, int errnum, const char *fmt, ...)
{
    if (e) {
        char words[128];
        va_list ap;
        va_start(ap, fmt);
        e->code = ERR_IO;
        vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
        va_end(ap);
        size_t n = strlen(e->msg);
        const char *w = strerror_r(errnum, words, sizeof(words));
        snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", w);
    }
    return ERR_IO;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e)
        return ERR_IO;
    char was[ERR_MSG_BYTES];
    memcpy(was, e->msg, sizeof(was));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", was);
    return e->code;
}

const char *err_name(int code)
{
    static const char *const names[] = {
        "ERR_OK",          "ERR_NOMEM",     "ERR_IO",   "ERR_FORMAT", "ERR_RANGE",  "ERR_LIMIT",
        "ERR_UNSUPPORTED", "ERR_NOT_FOUND", "ERR_BUSY", "ERR_PEER",   "ERR_CONFIG",
    };
    int i = -code;
    return i >= 0 && i < (int)(sizeof(names) / sizeof(names[0])) ? names[i] : "ERR_?";
}
