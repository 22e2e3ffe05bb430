/* async.c: cp.async. A copy is on its way from its issue to the wait that covers its group; reading
 * its destination before is a fault. Where the bytes land is up to the options: at once, or at the
 * wait. Both happen on hardware, and each shows bugs that the other hides. */
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/internal.h"

#define COPIES_MAX 256 /* of one thread on their way */

struct copy {
    uint8_t *to;
    const uint8_t *from;
    unsigned bytes, zeros; /* zeros fill the end */
    unsigned group;
    const void *pc;
};

struct simt_copies {
    struct copy copy[COPIES_MAX];
    unsigned n;
    unsigned group; /* that copies join now */
    struct simt_at at;
};

void simt_copies_reset(struct simt_thread *t)
{
    if (t->copies != NULL) {
        t->copies->n = 0;
        t->copies->group = 0;
    }
}

void simt_copies_check_exit(struct simt_thread *t)
{
    if (t->copies != NULL && t->copies->n != 0) {
        simt_fault_say("%s: thread %u ended with %u cp.async on their way; the last is of %s:%d",
                       simt_block.kernel, t->index, t->copies->n, t->copies->at.file,
                       t->copies->at.line);
        simt_fault_end();
    }
}

static void land(const struct copy *c)
{
    memcpy(c->to, c->from, c->bytes - c->zeros);
    memset(c->to + c->bytes - c->zeros, 0, c->zeros);
}

void simt_cp_async(void *shared, const void *global, unsigned bytes, unsigned zeros,
                   struct simt_at at)
{
    struct simt_thread *t = simt_self;
    const void *pc = __builtin_return_address(0);

    if (t->copies == NULL && (t->copies = calloc(1, sizeof *t->copies)) == NULL) {
        abort();
    }
    struct simt_copies *all = t->copies;
    if ((uintptr_t)shared % bytes != 0 || (uintptr_t)global % bytes != 0 ||
        (SIMT_CHECKED && simt_place_of(shared, bytes, NULL) != SIMT_SHARED)) {
        simt_trap("cp.async of an address that is not aligned to its size, or not to shared memory",
                  at);
    }
    if (all->n == COPIES_MAX) {
        simt_trap("more than 256 cp.async of a thread on their way", at);
    }
    if (SIMT_CHECKED && bytes > zeros) {
        simt_touch(global, bytes - zeros, SIMT_READ, pc);
    }
    if (SIMT_CHECKED) {
        simt_touch(shared, bytes, SIMT_WRITE, pc);
    }
    struct copy *c = &all->copy[all->n++];
    *c = (struct copy){shared, global, bytes, zeros, all->group, pc};
    all->at = at;
    if (simt_options.eager_copies) {
        land(c);
    } else if (SIMT_CHECKED) {
        memset(shared, 0x7f, bytes);
    }
    if (SIMT_CHECKED) {
        simt_shadow_in_flight(shared, bytes, true);
    }
}

void simt_cp_async_commit(void)
{
    if (simt_self->copies != NULL) {
        simt_self->copies->group++;
    }
}

/* All groups but the last `left` that were committed. */
void simt_cp_async_wait(unsigned left)
{
    struct simt_copies *all = simt_self->copies;
    unsigned kept = 0;

    for (unsigned i = 0; all != NULL && i < all->n; i++) {
        struct copy c = all->copy[i];
        if (c.group >= all->group || all->group - c.group <= left) {
            all->copy[kept++] = c;
            continue;
        }
        if (!simt_options.eager_copies) {
            land(&c);
        }
        if (SIMT_CHECKED) {
            simt_shadow_in_flight(c.to, c.bytes, false);
            simt_touch(c.to, c.bytes, SIMT_WRITE, c.pc);
        }
    }
    if (all != NULL) {
        all->n = kept;
    }
}
