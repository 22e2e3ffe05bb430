"""A replica of the Llama pass in numpy, written from kernels/NUMERICS.md alone, to the bit.

Every operation there is one correctly rounded fp32 operation in a stated order; here it is the same
operation on whole arrays. fma is exact: the product of two fp32 is exact in fp64, and the sum is
rounded to odd in fp64 before it is rounded to fp32, which gives the one rounding that fma has
(Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).

    python -m tests.model.replica MODEL IDS HIDDEN LOGITS

reads token ids in decimal and writes the residual stream behind the last layer and the logits of
every position as fp32.
"""

import sys

import numpy as np
from gguf import GGUFReader

F = np.float32
D = np.float64
SPLIT = 128  # positions of a split of the context


# ---- section 1: arithmetic ------------------------------------------------------------------


def to_odd(p, c, s):
    """p + c rounded to odd in fp64, given s = p + c rounded to nearest."""
    t = s - p
    error = (p - (s - t)) + (c - t)
    bits = s.view(np.int64)
    fix = (error != 0) & ((bits & 1) == 0)
    away = np.where((error > 0) == (bits >= 0), 1, -1)
    return np.where(fix, bits + away, bits).view(D)


def fma(a, b, c):
    """fp32 fma of fp32 arrays."""
    p = np.multiply(a, b, dtype=D)
    s = np.add(p, c, dtype=D)
    # Rounding twice differs from rounding once only where the first lands on a midpoint of fp32.
    # Subnormals have theirs elsewhere.
    unsure = (s.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    unsure |= np.abs(s) < 2.0**-125
    if unsure.any():
        c = np.broadcast_to(np.asarray(c, D), s.shape)
        s[unsure] = to_odd(p[unsure], c[unsure], s[unsure])
    return s.astype(F)


def fold(v):
    """v[..., n] to [...]."""
    n = v.shape[-1]
    while n > 1:
        n //= 2
        v = v[..., :n] + v[..., n : 2 * n]
    return v[..., 0]


def tree8(s):
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))


def hexf(text):
    return F(float.fromhex(text))


def exp(x):
    x = np.where(F(89) < x, F(89), x)
    x = np.where(F(-104) > x, F(-104), x)
    magic = F(12582912)
    t = fma(x, hexf("0x1.715476p+0"), magic)
    n = t - magic
    r = fma(n, hexf("-0x1.62e4p-1"), x)
    r = fma(n, hexf("-0x1.7f7d1cp-20"), r)
    p = fma(hexf("0x1.6a21a8p-10"), r, hexf("0x1.123b6ap-7"))
    for c in ("0x1.5558fcp-5", "0x1.55549p-3", "0x1.fffffcp-2", "0x1p0", "0x1p0"):
        p = fma(p, r, hexf(c))
    e = t.view(np.int32) - magic.view(np.int32)
    a = e >> 1
    b = e - a

    def power(k):
        return ((k + 127).astype(np.uint32) << 23).view(F)

    return (p * power(a)) * power(b)


def silu(x):
    return x / (F(1) + exp(-x))


# ---- sections 2 to 4: weights, quantize, matmul ---------------------------------------------


class Matrix:
    """A GGUF tensor as blocks: w (rows, nb, 32) integers as fp32, d and m (rows, nb)."""

    def __init__(self, tensor):
        kind = tensor.tensor_type.name
        rows = int(tensor.shape[1])
        if kind == "Q4_1":
            raw = tensor.data.reshape(rows, -1, 20)
            self.m = raw[..., 2:4].copy().view(np.float16)[..., 0].astype(F)
            q = raw[..., 4:]
            self.w = np.concatenate([q & 15, q >> 4], axis=-1).astype(F)
        elif kind == "Q8_0":
            raw = tensor.data.reshape(rows, -1, 34)
            self.m = None
            self.w = raw[..., 2:].view(np.int8).astype(F)
        else:
            raise NotImplementedError(kind)
        self.d = raw[..., :2].copy().view(np.float16)[..., 0].astype(F)

    def row(self, ids):
        """Dequantised rows."""
        x = self.d[ids][..., None] * self.w[ids]
        if self.m is not None:
            x = x + self.m[ids][..., None]
        return x.reshape(len(ids), -1)


def quantize(x):
    """x (n, k), k a multiple of 32: q (n, nb, 32) as fp32, d (n, nb), s (n, nb) as fp32."""
    v = x.reshape(x.shape[0], -1, 32)
    amax = np.max(np.abs(v), axis=-1)
    assert np.isfinite(amax).all()
    live = amax >= F(2.0**-100)
    safe = np.where(live, amax, F(1))
    d = np.where(live, safe / F(127), F(0))
    q = np.rint(v * (F(127) / safe)[..., None]) * live[..., None]
    return q.astype(F), d, q.sum(axis=-1, dtype=D).astype(F)


def matmul(w, act, chunk=1024):
    """y (n, rows)."""
    q, dx, sx = act
    n, nb = dx.shape
    rows = w.d.shape[0]
    y = np.empty((n, rows), F)
    for begin in range(0, rows, chunk):
        part = slice(begin, min(begin + chunk, rows))
        sums = []
        for s in range(8):
            acc = np.zeros((n, part.stop - begin), F)
            for b in range(nb * s // 8, nb * (s + 1) // 8):
                # Integers below 2^24: exact in fp32 in any order.
                idot = q[:, b] @ w.w[part, b].T
                d = w.d[part, b][None, :]
                if w.m is None:
                    t = d * idot
                else:
                    t = fma(d, idot, w.m[part, b][None, :] * sx[:, b, None])
                acc = fma(dx[:, b, None], t, acc)
            sums.append(acc)
        y[:, part] = tree8(sums)
    return y


# ---- sections 5 to 7: rmsnorm, rope, attention ----------------------------------------------


def rmsnorm(x, w, eps):
    n, d = x.shape
    lane = np.zeros((n, 64), F)
    for i in range(0, d, 64):
        v = x[:, i : i + 64]
        lane[:, : v.shape[1]] = fma(v, v, lane[:, : v.shape[1]])
    mean = fold(lane) / F(d)
    r = F(1) / np.sqrt(mean + F(eps))
    return (x * r[:, None]) * w[None, :]


def log2_64(x):
    e = 0
    while x >= float.fromhex("0x1.6a09e667f3bcdp+0"):
        x, e = x / 2, e + 1
    while x < float.fromhex("0x1.6a09e667f3bcdp-1"):
        x, e = x * 2, e - 1
    f = (x - 1) / (x + 1)
    z = f * f
    p = 0.0
    for n in range(23, 0, -2):
        p = (p * z) + 1.0 / n
    return e + (((2 * f) * p) * float.fromhex("0x1.71547652b82fep+0"))


def round_64(v):
    return (v + 6755399441055744.0) - 6755399441055744.0


def exp2_64(x):
    n = round_64(x)
    r = (x - n) * float.fromhex("0x1.62e42fefa39efp-1")
    p = 1.0
    for i in range(16, 0, -1):
        p = 1 + ((p * r) / i)
    return p * 2.0 ** int(n)


def rope_table(base, dim, positions):
    """cos and sin (positions, dim / 2)."""
    inv_freq = np.array([exp2_64(-((2 * i) / dim) * log2_64(base)) for i in range(dim // 2)], D)
    angle = np.arange(positions, dtype=D)[:, None] * inv_freq[None, :]
    n = round_64(angle * float.fromhex("0x1.45f306dc9c883p-1"))
    r = angle - n * float.fromhex("0x1.921fb544p+0")
    r = r - n * float.fromhex("0x1.0b4611a6p-34")
    r = r - n * float.fromhex("0x1.3198a2e037073p-69")
    z = r * r
    factorial = [1.0]
    for k in range(1, 21):
        factorial.append(factorial[-1] * k)
    s = np.full_like(r, 1 / factorial[19])
    for k in range(17, 2, -2):
        s = 1 / factorial[k] - s * z
    sin = r - ((r * z) * s)
    c = np.full_like(r, 1 / factorial[20])
    for k in range(18, 1, -2):
        c = 1 / factorial[k] - c * z
    cos = 1 - (z * c)
    turn = n.astype(np.int64) % 4
    sin, cos = (
        np.choose(turn, [sin, cos, -sin, -cos]),
        np.choose(turn, [cos, -sin, -cos, sin]),
    )
    return cos.astype(F), sin.astype(F)


def rotate(x, cos, sin):
    """x (n, heads, head_dim), pairs (2i, 2i + 1)."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    y = np.empty_like(x)
    y[..., 0::2] = fma(a, cos, -(b * sin))
    y[..., 1::2] = fma(a, sin, b * cos)
    return y


def f16(x):
    return x.astype(np.float16).astype(F)


def int8(x):
    """x (n, heads, head_dim) with one scale for each (n, heads)."""
    amax = np.max(np.abs(x), axis=-1)
    assert np.isfinite(amax).all() and (amax >= F(2.0**-100)).all()
    return np.rint(x * (F(127) / amax)[..., None]).astype(F), amax / F(127)


def attention(q, k, v, k_scale=None, v_scale=None):
    """q (n, heads, head_dim), k and v (n, kv_heads, head_dim) as the cache has them, and for int8
    their scales (n, kv_heads)."""
    n, heads, dim = q.shape
    group = heads // k.shape[1]
    k, v, k_scale, v_scale = (
        x if x is None else np.repeat(x, group, axis=1) for x in (k, v, k_scale, v_scale)
    )
    out = np.empty_like(q)
    for p0 in range(0, n, SPLIT):  # rows of one block of positions: they see the same splits
        rows = np.arange(p0, min(p0 + SPLIT, n))
        total = None
        for first in range(0, p0 + 1, SPLIT):
            end = min(first + SPLIT, rows[-1] + 1)
            scales = (x if x is None else x[first:end] for x in (k_scale, v_scale))
            part = attention_split(q[rows], k[first:end], v[first:end], *scales, rows, first)
            total = part if total is None else merge(total, part)
        out[rows] = total[2] / total[1][..., None]
    return out.reshape(n, heads * dim)


def attention_split(q, k, v, k_scale, v_scale, rows, first):
    scale = F(1) / np.sqrt(F(q.shape[2]))
    n, heads, dim = q.shape
    sums = []
    for s in range(4):
        acc = np.zeros((n, heads, len(k)), F)
        for d in range(dim * s // 4, dim * (s + 1) // 4):
            acc = fma(q[:, :, d, None], k[:, :, d].T[None], acc)
        sums.append(acc)
    dot = (sums[0] + sums[1]) + (sums[2] + sums[3])
    score = scale * (dot if k_scale is None else dot * k_scale.T[None])
    visible = (first + np.arange(len(k)))[None, :] <= rows[:, None]  # (n, positions)
    m = np.where(visible[:, None, :], score, -np.inf).max(axis=-1).astype(F) + F(0)
    e = exp(np.where(visible[:, None, :], score, m[..., None]) - m[..., None])
    lane = np.zeros((n, heads, 16), F)
    o = np.zeros((n, heads, dim), F)
    for j in range(len(k)):
        seen = visible[:, j]
        at = (first + j) % 16
        lane[seen, :, at] = lane[seen, :, at] + e[seen, :, j]
        weight = e[seen, :, j] if v_scale is None else e[seen, :, j] * v_scale[j][None]
        o[seen] = fma(weight[..., None], v[j][None], o[seen])
    return m, fold(lane), o


def merge(total, part):
    m0, l0, o0 = total
    m1, l1, o1 = part
    m = np.where(m1 > m0, m1, m0)
    keep, add = exp(m0 - m), exp(m1 - m)
    o = fma(o0, np.broadcast_to(keep[..., None], o0.shape), o1 * add[..., None])
    return m, fma(l0, keep, l1 * add), o


# ---- the model ------------------------------------------------------------------------------


class Llama:
    def __init__(self, path, kv_type="f16"):
        reader = GGUFReader(path)
        self.kv_type = kv_type
        self.tensors = {t.name: t for t in reader.tensors}

        def value(key):
            return reader.fields["llama." + key].contents()

        self.layers = value("block_count")
        self.heads = value("attention.head_count")
        self.kv_heads = value("attention.head_count_kv")
        self.dim = value("embedding_length") // self.heads
        self.eps = value("attention.layer_norm_rms_epsilon")
        self.base = value("rope.freq_base")

    def matrix(self, name):
        return Matrix(self.tensors[name + ".weight"])

    def vector(self, name):
        return np.array(self.tensors[name + ".weight"].data, F)

    def attend(self, x, i, cos, sin):
        act = quantize(rmsnorm(x, self.vector(f"blk.{i}.attn_norm"), self.eps))
        n = len(x)

        def project(which, heads):
            return matmul(self.matrix(f"blk.{i}.attn_{which}"), act).reshape(n, heads, self.dim)

        q = rotate(project("q", self.heads), cos, sin)
        k = rotate(project("k", self.kv_heads), cos, sin)
        v = project("v", self.kv_heads)
        if self.kv_type == "int8":
            (k, k_scale), (v, v_scale) = int8(k), int8(v)
            out = quantize(attention(q, k, v, k_scale, v_scale))
        else:
            out = quantize(attention(q, f16(k), f16(v)))
        return x + matmul(self.matrix(f"blk.{i}.attn_output"), out)

    def feed_forward(self, x, i):
        act = quantize(rmsnorm(x, self.vector(f"blk.{i}.ffn_norm"), self.eps))
        gate = matmul(self.matrix(f"blk.{i}.ffn_gate"), act)
        up = matmul(self.matrix(f"blk.{i}.ffn_up"), act)
        return x + matmul(self.matrix(f"blk.{i}.ffn_down"), quantize(silu(gate) * up))

    def forward(self, ids):
        """The residual stream behind the last layer (n, n_embd), and the logits (n, vocab)."""
        embed = self.matrix("token_embd")
        cos, sin = rope_table(self.base, self.dim, len(ids))
        x = embed.row(np.asarray(ids))
        for i in range(self.layers):
            x = self.feed_forward(self.attend(x, i, cos, sin), i)
        head = embed if "output.weight" not in self.tensors else self.matrix("output")
        return x, matmul(head, quantize(rmsnorm(x, self.vector("output_norm"), self.eps)))


def main(model, ids_path, hidden_path, logits_path, kv_type):
    with open(ids_path) as f:
        ids = [int(word) for word in f.read().split()]
    hidden, logits = Llama(model, kv_type).forward(ids)
    hidden.tofile(hidden_path)
    logits.tofile(logits_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
