/* answer.h: a chat or completion request that runs: its generations, and what the client sees.
 *
 *     pool tokens ─► choice: detokenise, stop strings ─► text ─┬─► one SSE chunk a choice and step
 *                                                              └─► kept until all choices are done
 *
 * Everything lies in the request's arena, but the growing texts. The answer begins (a status, the
 * SSE head) with the first token, so what fails before it is a proper HTTP error; what fails after
 * it in a stream is an error event, and no [DONE].
 */
#ifndef ARGOSY_ROUTER_HTTP_ANSWER_H
#define ARGOSY_ROUTER_HTTP_ANSWER_H

#include "router/http/api_request.h"
#include "router/http/choice.h"
#include "router/http/metrics.h"
#include "router/http/request.h"

struct answer {
    struct request *request;
    struct http *http;
    const struct api_request *api;
    struct model_metrics *metrics;
    struct choice *choices; /* (n), prompt by prompt */
    uint32_t n;
    uint32_t n_done;
    bool started;    /* the stream's head is out */
    char worker[65]; /* of the first token */
    char id[48];
    int64_t created_s;
    size_t kept_bytes; /* of texts and logprobs that wait for the end */
    const char *head;  /* of each SSE chunk, up to the list of choices, and of a choice in it */
    const char *tail;  /* of each SSE chunk, behind that list */
    size_t head_n;     /* up to the list */
    size_t open_n;     /* up to the choice's index */
    size_t tail_n;
    uint8_t cache_salt[16];
    uint64_t session_hash;
};

/* Runs it and answers. `a` lies in the request's arena. */
void answer_start(struct request *r, struct api_request *a);

/* ---- for embeddings.c ---- */

/* What keeps requests of one client together; 0: nothing. */
uint64_t answer_session(const struct request *r, const struct api_request *api);
/* What `timeout` leaves of the configured one. */
uint32_t answer_deadline_ms(const struct api_request *api, uint32_t configured);

/* ---- for choice.c ---- */

/* A choice has news to send or to keep. False: the answer is over, with an error. */
bool answer_news(struct answer *a, struct choice *c, const struct buf *text);
/* A choice is complete. */
void answer_choice_done(struct answer *a, struct choice *c);
/* A choice can't be completed: the whole answer fails. */
void answer_fail(struct answer *a, const struct api_error *e);

/* answer_write.c: the JSON. */
int answer_prepare_chunks(struct answer *a);
void answer_write_role(struct answer *a, const struct choice *c, struct buf *out);
void answer_write_delta(struct answer *a, const struct choice *c, const char *text, size_t n,
                        struct buf *out);
/* What c->speech holds that the client does not have yet; takes it out. */
void answer_write_speech(struct answer *a, struct choice *c, struct buf *out);
void answer_write_finish(struct answer *a, const struct choice *c, struct buf *out);
void answer_write_end(struct answer *a, struct buf *out);
void answer_write_whole(struct answer *a, struct buf *out);

#endif
