/* fields.h: every field that a request may have, and what is done with it. */
#ifndef ARGOSY_ROUTER_HTTP_FIELDS_H
#define ARGOSY_ROUTER_HTTP_FIELDS_H

#include <json-c/json.h>
#include <stddef.h>

#include "router/http/api_request.h"

enum field_type {
    FIELD_BOOL,
    FIELD_INT,    /* also 3.0 */
    FIELD_NUMBER, /* finite */
    FIELD_STRING,
    FIELD_OBJECT,
    FIELD_ARRAY,
    FIELD_ANY, /* several types: its reader checks */
};

enum field_use {
    FIELD_SET,     /* goes into struct api_request at `offset`, within [min, max] */
    FIELD_READ,    /* `read` does it */
    FIELD_LATER,   /* api_request_read does it, when the model is known */
    FIELD_IGNORED, /* of the right type, and without effect on the answer */
    FIELD_REFUSED, /* unless it is `neutral`: to ignore it would change the meaning */
};

struct field {
    const char *name;
    unsigned kinds; /* enum api_kind */
    enum field_type type;
    enum field_use use;
    double min, max;
    size_t offset;
    int (*read)(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                struct api_error *e);
    const char *neutral; /* JSON that asks for nothing, or NULL */
    const char *note;    /* for the documents, and the reason of a refusal */
};

/* All fields in the manual's order. */
const struct field *fields_table(size_t *n);
/* Reads every member of `root`. A null counts as not there. */
int fields_read(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                struct api_error *e);
/* "integer", "string", … for a message. */
const char *field_json_type(struct json_object *v);
/* An integer, or a float without a fraction. False: not one, or past 64 bits. */
bool field_int(struct json_object *v, int64_t *out);

/* params.c */
int params_read_stop(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                     struct api_error *e);
int params_read_stream_options(struct api_request *a, struct json_object *v,
                               const struct api_context *ctx, struct api_error *e);
int params_read_logit_bias(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e);
int params_read_stop_ids(struct api_request *a, struct json_object *v,
                         const struct api_context *ctx, struct api_error *e);
int params_read_encoding_format(struct api_request *a, struct json_object *v,
                                const struct api_context *ctx, struct api_error *e);
int params_read_pooling(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                        struct api_error *e);

/* wants.c */
int wants_read(struct api_request *a, struct json_object *v, const struct api_context *ctx,
               struct api_error *e);

/* structured.c */
int structured_read_format(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e);
int structured_read_outputs(struct api_request *a, struct json_object *v,
                            const struct api_context *ctx, struct api_error *e);
int structured_read_json(struct api_request *a, struct json_object *v,
                         const struct api_context *ctx, struct api_error *e);
int structured_read_regex(struct api_request *a, struct json_object *v,
                          const struct api_context *ctx, struct api_error *e);
int structured_read_choice(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e);
int structured_read_guided_grammar(struct api_request *a, struct json_object *v,
                                   const struct api_context *ctx, struct api_error *e);
int structured_read_grammar(struct api_request *a, struct json_object *v,
                            const struct api_context *ctx, struct api_error *e);
int structured_read_schema(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e);
/* n bytes of text become the request's grammar; -1 if it has one. `param` is to blame for it. */
int structured_take(struct api_request *a, enum grammar_kind kind, const char *text, size_t n,
                    const char *param, const struct api_context *ctx, struct api_error *e);
/* JSON of a model that thinks first follows its thought. */
int structured_think(struct api_request *a, const struct api_context *ctx, struct api_error *e);
/* Compiles it, to say what is wrong with it. May set a->grammar_pending: then come again. */
int structured_check(struct api_request *a, const struct api_context *ctx, struct api_error *e);

/* What concerns several fields at once. */
int params_check(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                 struct api_error *e);

#endif
