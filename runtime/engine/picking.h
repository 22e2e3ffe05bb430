/* picking.h: what is looked at in a pick's logits before a token is picked from them. */
#ifndef ARGOSY_ENGINE_PICKING_H
#define ARGOSY_ENGINE_PICKING_H

#include "runtime/engine/backend.h"

/* Fills in k->finite, and the digest where it is wanted, of logits (vocab). */
void picking_examine(struct pick *k, const float *logits, uint32_t vocab);

#endif
