/* genlist.c: generations in a row, each in one at most: a worker's, or those that wait. */
#include "router/pool/pool_internal.h"

void gen_list_add(struct gen_list *l, struct gen *g)
{
    g->next = NULL;
    g->prev = l->tail;
    if (l->tail)
        l->tail->next = g;
    else
        l->head = g;
    l->tail = g;
    l->n++;
}

void gen_list_remove(struct gen_list *l, struct gen *g)
{
    if (g->prev)
        g->prev->next = g->next;
    else
        l->head = g->next;
    if (g->next)
        g->next->prev = g->prev;
    else
        l->tail = g->prev;
    g->prev = g->next = NULL;
    l->n--;
}
