/* decoder.h: the pass that most architectures share.
 *
 *     x = embedding
 *     a layer:  x += o(attention(qkv(norm x)));  x += down(silu(gate) * up)(norm x), or experts
 *     logits = head(norm x)
 *
 * What a layer has (biases, norms of heads, fused matrices, experts, a window) is in its struct.
 */
#ifndef ARGOSY_MODEL_DECODER_H
#define ARGOSY_MODEL_DECODER_H

struct model;
struct model_layer;
struct pass;
struct pass_attention;

/* struct arch's forward. */
void decoder_forward(const struct model *m, struct pass *p);

/* The attention of a layer of m. */
struct pass_attention decoder_attention(const struct model *m, const struct model_layer *y);
/* y = q|k|v of act. */
void decoder_project_qkv(const struct model_layer *y, struct pass *p);

#endif
