/* recipe.h: the fuzzer's bytes as choices. A generator asks for one after another and makes a file
 * that is right but for a few things: so mutations reach checks that raw bytes never would. Behind
 * the end of the bytes every choice is 0: the plainest one. */
#ifndef ARGOSY_FUZZ_RECIPE_H
#define ARGOSY_FUZZ_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECIPE_EDITS_MAX 3

/* What is done to one of the things that the generator writes. */
enum recipe_action {
    RECIPE_AS_IT_IS,
    RECIPE_LEFT_OUT,
    RECIPE_TWICE,
    RECIPE_OTHER_VALUE,
    RECIPE_OTHER_TYPE,
    RECIPE_ACTIONS
};

struct recipe {
    const uint8_t *at, *end;
    struct recipe_edit {
        uint32_t thing;
        enum recipe_action action;
        uint32_t choice;
    } edits[RECIPE_EDITS_MAX];
    uint32_t n_edits;
    uint32_t things; /* written so far */
};

static inline uint32_t recipe_byte(struct recipe *r)
{
    return r->at < r->end ? *r->at++ : 0;
}

static inline uint32_t recipe_u16(struct recipe *r)
{
    uint32_t low = recipe_byte(r);
    return low | recipe_byte(r) << 8;
}

/* Below n. */
static inline uint32_t recipe_pick(struct recipe *r, uint32_t n)
{
    return recipe_byte(r) % n;
}

/* things: about how many will be written. */
static inline void recipe_init(struct recipe *r, const uint8_t *bytes, size_t n, uint32_t things)
{
    *r = (struct recipe){.at = bytes, .end = bytes + n};
    r->n_edits = recipe_pick(r, RECIPE_EDITS_MAX + 1);
    for (uint32_t i = 0; i < r->n_edits; i++) {
        r->edits[i].thing = recipe_byte(r) % things;
        r->edits[i].action = (enum recipe_action)recipe_pick(r, RECIPE_ACTIONS);
        r->edits[i].choice = recipe_byte(r);
    }
}

/* The edit of the thing that is written next; action RECIPE_AS_IT_IS for most. */
static inline struct recipe_edit recipe_next(struct recipe *r)
{
    uint32_t thing = r->things++;
    for (uint32_t i = 0; i < r->n_edits; i++)
        if (r->edits[i].thing == thing)
            return r->edits[i];
    return (struct recipe_edit){.thing = thing};
}

static inline uint64_t recipe_number(uint32_t choice)
{
    static const uint64_t numbers[] = {
        0,          1,           2,           3,          5,          7,          8,
        15,         16,          17,          24,         31,         32,         33,
        64,         128,         255,         256,        257,        512,        1023,
        1024,       4096,        65535,       65536,      1u << 20,   1u << 24,   (1u << 24) + 1,
        0x7fffffff, 0x80000000u, 0xfffffffeu, UINT32_MAX, 1ull << 32, 1ull << 40, INT64_MAX,
        1ull << 63, UINT64_MAX,
    };
    return numbers[choice % (sizeof(numbers) / sizeof(numbers[0]))];
}

#endif
