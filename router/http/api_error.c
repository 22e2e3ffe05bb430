#include "router/http/api_error.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/json.h"

#define RETRY_AFTER_DEFAULT_MS 1000

int api_error_set(struct api_error *e, int status, const char *code, const char *param,
                  const char *fmt, ...)
{
    memset(e, 0, sizeof(*e));
    e->status = status;
    e->code = code;
    snprintf(e->param, sizeof(e->param), "%s", param ? param : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    return -1;
}

void api_error_of_fault(struct api_error *e, enum gen_fault fault, const char *detail,
                        uint32_t retry_after_ms)
{
    if (!detail)
        detail = "";
    uint32_t wait_ms = retry_after_ms ? retry_after_ms : RETRY_AFTER_DEFAULT_MS;
    switch (fault) {
    case GEN_FAULT_NO_WORKER:
        api_error_set(e, 503, "no_worker", NULL, "No worker serves this model now. %s", detail);
        e->retry_after_ms = wait_ms;
        return;
    case GEN_FAULT_UNWANTED:
        api_error_set(e, 503, "no_matching_worker", "argosy",
                      "No worker has what the request wants of it: %s.", detail);
        e->retry_after_ms = wait_ms;
        return;
    case GEN_FAULT_BUSY:
        api_error_set(e, 429, "overloaded", NULL, "All workers are busy. %s", detail);
        e->retry_after_ms = wait_ms;
        return;
    case GEN_FAULT_INVALID:
        api_error_set(e, 400, NULL, NULL, "%s",
                      detail[0] ? detail : "The worker refused the request.");
        return;
    case GEN_FAULT_DEADLINE:
        api_error_set(e, 504, "deadline_exceeded", NULL, "The request ran out of time. %s", detail);
        return;
    case GEN_FAULT_WORKER:
        api_error_set(e, 502, "worker_failed", NULL, "The workers failed. %s", detail);
        return;
    }
}

static const char *type_of(int status)
{
    if (status == 429)
        return "rate_limit_error";
    if (status == 403)
        return "permission_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static void str_or_null(struct json *w, const char *s)
{
    if (s && s[0])
        json_str(w, s);
    else
        json_null(w);
}

void api_error_write(const struct api_error *e, struct buf *out)
{
    struct json w;
    json_init(&w, out);
    json_obj(&w);
    json_key(&w, "error");
    json_obj(&w);
    json_key(&w, "message");
    json_str(&w, e->message);
    json_key(&w, "type");
    json_str(&w, type_of(e->status));
    json_key(&w, "param");
    str_or_null(&w, e->param);
    json_key(&w, "code");
    str_or_null(&w, e->code);
    json_obj_end(&w);
    json_obj_end(&w);
}
