#include "runtime/engine/collective.h"

#include <string.h>

#include "runtime/model/shard.h"

int collective_broadcast(struct collective *c, void *bytes, size_t n, struct err *e)
{
    size_t begin[SHARD_RANKS_MAX + 1] = {0};
    for (uint32_t r = 1; r <= c->size; r++)
        begin[r] = n;
    const struct collective_plane plane = {
        .src = bytes, .src_stride = n, .dst = bytes, .dst_stride = n, .rows = 1, .begin = begin};
    return c->gather(c, &plane, 1, COLLECTIVE_ALL, e);
}

int collective_agree(struct collective *c, int rc, const struct err *own, struct err *e)
{
    struct err said[SHARD_RANKS_MAX] = {{0}}, mine = {0};
    size_t begin[SHARD_RANKS_MAX + 1];
    if (rc < 0)
        mine = *own;
    mine.code = rc;
    for (uint32_t r = 0; r <= c->size; r++)
        begin[r] = r * sizeof(mine);
    const struct collective_plane plane = {.src = &mine,
                                           .src_stride = sizeof(mine),
                                           .dst = said,
                                           .dst_stride = sizeof(said),
                                           .rows = 1,
                                           .begin = begin};
    int failed = c->gather(c, &plane, 1, COLLECTIVE_ALL, e);
    if (failed < 0)
        return failed;
    for (uint32_t r = 0; r < c->size; r++) {
        if (said[r].code == 0)
            continue;
        said[r].msg[sizeof(said[r].msg) - 1] = '\0';
        return r == 0 ? err_set(e, said[r].code, "%s", said[r].msg)
                      : err_set(e, said[r].code, "rank %u: %s", r, said[r].msg);
    }
    return 0;
}
