#include "runtime/engine/kvpool.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

int kvpool_init(struct kvpool *p, uint32_t n_pages, struct err *e)
{
    *p = (struct kvpool){0};
    uint32_t *free_pages = calloc(n_pages ? n_pages : 1, sizeof(*free_pages));
    uint32_t *refs = calloc(n_pages ? n_pages : 1, sizeof(*refs));
    if (!free_pages || !refs) {
        free(free_pages);
        free(refs);
        return err_set(e, ERR_NOMEM, "kvpool: no memory for %u pages", n_pages);
    }
    *p = (struct kvpool){
        .n_pages = n_pages, .n_free = n_pages, .free_pages = free_pages, .refs = refs};
    /* Low pages first: memory that was never used stays untouched while the load is light. */
    for (uint32_t i = 0; i < n_pages; i++)
        free_pages[i] = n_pages - 1 - i;
    return 0;
}

void kvpool_release(struct kvpool *p)
{
    free(p->free_pages);
    free(p->refs);
    *p = (struct kvpool){0};
}

bool kvpool_take(struct kvpool *p, uint32_t *page)
{
    if (p->n_free == 0)
        return false;
    *page = p->free_pages[--p->n_free];
    ASSERT(p->refs[*page] == 0);
    p->refs[*page] = 1;
    return true;
}

void kvpool_share(struct kvpool *p, uint32_t page)
{
    ASSERT(page < p->n_pages && p->refs[page] > 0 && p->refs[page] < UINT32_MAX);
    p->refs[page]++;
}

void kvpool_drop(struct kvpool *p, uint32_t page)
{
    ASSERT(page < p->n_pages && p->refs[page] > 0);
    if (--p->refs[page] == 0)
        p->free_pages[p->n_free++] = page;
}

bool kvpool_consistent(const struct kvpool *p)
{
    uint32_t unreferenced = 0;
    unsigned char *seen = calloc(p->n_pages ? p->n_pages : 1, 1);
    if (!seen)
        return false;
    bool ok = p->n_free <= p->n_pages;
    for (uint32_t i = 0; ok && i < p->n_free; i++) {
        uint32_t page = p->free_pages[i];
        ok = page < p->n_pages && !seen[page] && p->refs[page] == 0;
        if (ok)
            seen[page] = 1;
    }
    for (uint32_t i = 0; i < p->n_pages; i++)
        unreferenced += p->refs[i] == 0;
    free(seen);
    return ok && unreferenced == p->n_free;
}
