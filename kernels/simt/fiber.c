/* fiber.c: a stack a thread, and the switch between them. x86-64, System V.
 *
 * simt_switch saves what a function must keep for its caller (rbx, rbp, r12 to r15, and the stack
 * pointer) and takes up what another call of it saved; its return is then the other's. The control
 * words of the floating-point unit are the same in all threads. A new stack looks like one that
 * called it: six zeros, and simt_fiber_start as where to return. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/simt/internal.h"

#if !defined(__x86_64__)
#error "the emulator's switch is written for x86-64"
#endif

#define GUARD ((size_t)4096)
#define STACK ((size_t)(SIMT_ASAN ? 128 : 64) * 1024)

void simt_switch(void **save_sp, void *load_sp);
__asm__(".text\n"
        ".globl simt_switch\n"
        ".type simt_switch, @function\n"
        "simt_switch:\n"
        "  pushq %rbp\n"
        "  pushq %rbx\n"
        "  pushq %r12\n"
        "  pushq %r13\n"
        "  pushq %r14\n"
        "  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n"
        "  popq %r14\n"
        "  popq %r13\n"
        "  popq %r12\n"
        "  popq %rbx\n"
        "  popq %rbp\n"
        "  popq %rcx\n" /* not ret, which the processor would expect to match a call */
        "  jmp *%rcx\n"
        ".size simt_switch, .-simt_switch\n");

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
static const void *host_stack; /* learnt when a thread starts or goes on */
static size_t host_stack_bytes;
#endif

static uint8_t *stacks;
static void *host_sp;

/* Stacks begin at different lines of a page, so that those of a warp don't compete for one set of
 * the cache. */
#define COLOUR(i) ((size_t)((i) % 21) * 192)

static uint8_t *stack_of(unsigned i)
{
    return stacks + i * (STACK + GUARD) + GUARD;
}

/* Once for the program; the pages that nobody touches cost nothing. */
static void get_stacks(void)
{
    size_t bytes = SIMT_THREADS_MAX * (STACK + GUARD);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    if (p == MAP_FAILED) {
        perror("simt: no memory for stacks");
        abort();
    }
    stacks = p;
    for (unsigned i = 0; i < SIMT_THREADS_MAX; i++) {
        if (mprotect(stacks + i * (STACK + GUARD), GUARD, PROT_NONE) != 0) {
            perror("simt: no guard behind a stack");
            abort();
        }
    }
}

static void arrived_in_thread(struct simt_thread *t)
{
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(t->fake_stack, &host_stack, &host_stack_bytes);
#else
    (void)t;
#endif
}

static void simt_fiber_start(void)
{
    arrived_in_thread(simt_self);
    simt_block.body(simt_block.argument);
    simt_thread_exits();
    abort(); /* nobody enters an exited thread */
}

void simt_fiber_prepare(unsigned i)
{
    if (stacks == NULL) {
        get_stacks();
    }
    struct simt_thread *t = &simt_block.thread[i];
    uint8_t *bottom = stack_of(i);
#if SIMT_ASAN
    ASAN_UNPOISON_MEMORY_REGION(bottom, STACK); /* what an abandoned thread left */
#endif
    void **sp = (void **)(void *)(bottom + STACK - COLOUR(i)) - 8;
    memset(sp, 0, 8 * sizeof *sp);
    void (*start)(void) = simt_fiber_start;
    memcpy(&sp[6], &start, sizeof start);
    t->sp = sp;
    t->fake_stack = NULL;
}

void simt_fiber_enter(struct simt_thread *t)
{
    simt_self = t;
#if SIMT_ASAN
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, stack_of(t->index), STACK);
#endif
    simt_switch(&host_sp, t->sp);
#if SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
    simt_self = NULL;
}

void simt_fiber_leave(bool for_good)
{
    struct simt_thread *t = simt_self;

#if SIMT_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &t->fake_stack, host_stack, host_stack_bytes);
#else
    (void)for_good;
#endif
    simt_switch(&t->sp, host_sp);
    arrived_in_thread(t);
}

void simt_fiber_switch(struct simt_thread *to)
{
    struct simt_thread *from = simt_self;

    simt_self = to;
    simt_switch(&from->sp, to->sp);
}

bool simt_fiber_owns(const void *p, size_t bytes)
{
    const uint8_t *bottom = stack_of(simt_self->index), *at = p;

    return at >= bottom && at < bottom + STACK && bytes <= (size_t)(bottom + STACK - at);
}
