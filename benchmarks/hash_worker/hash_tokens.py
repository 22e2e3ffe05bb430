"""What a hash worker must say (hash_tokens.h): for tests and measurements that check answers."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HEAD = 11
MASK = (1 << 64) - 1


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hash_of_request(prompt, seed):
    """Of the prompt's token ids and the seed, as the worker gets them."""
    h = mix(seed)
    for token in prompt:
        h = mix(h ^ token)
    return h


def letter(h, i):
    return LETTERS[(h >> (6 * i) if i < HEAD else mix(h + i)) & 63]


def text_of(prompt, seed, n):
    """The first n tokens of the answer, as text: one letter each."""
    h = hash_of_request(prompt, seed)
    return "".join(letter(h, i) for i in range(n))


def first_wrong(text):
    """The place of the first letter that cannot follow the ones before it; None: there is none.

    Needs no prompt: the first 11 letters spell the hash that the others come from. So a letter that
    is lost, doubled or another request's is found, and an answer that is another's altogether is
    not: for that, compare with text_of.
    """
    if any(c not in LETTERS for c in text):
        return next(i for i, c in enumerate(text) if c not in LETTERS)
    h = sum(LETTERS.index(c) << (6 * i) for i, c in enumerate(text[:HEAD])) & MASK
    return next((i for i, c in enumerate(text) if c != letter(h, i)), None)
