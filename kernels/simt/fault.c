/* fault.c: what went wrong, in words, and the end of the launch. */
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/simt/internal.h"

static char text[2048];

void simt_fault_clear(void)
{
    text[0] = '\0';
}

bool simt_faulted(void)
{
    return text[0] != '\0';
}

const char *simt_fault(void)
{
    return text;
}

static void append(const char *format, va_list args)
{
    size_t at = strlen(text);

    (void)vsnprintf(text + at, sizeof text - at, format, args);
}

void simt_fault_say(const char *format, ...)
{
    va_list args;

    if (simt_faulted()) { /* the first is the cause */
        return;
    }
    va_start(args, format);
    append(format, args);
    va_end(args);
}

void simt_fault_note(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    append(format, args);
    va_end(args);
}

void simt_fault_end(void)
{
    if (simt_self != NULL) {
        simt_fiber_leave(true);
    }
}

void simt_trap(const char *what, struct simt_at at)
{
    simt_fault_say("%s: block %u, thread %u: %s at %s:%d", simt_block.kernel, simt_block.number,
                   simt_self->index, what, at.file, at.line);
    simt_fault_end();
    __builtin_unreachable();
}

/* "0-3, 7": the indices whose flag is set. */
const char *simt_thread_list(const uint8_t *flags, unsigned n, char *list, size_t bytes)
{
    size_t at = 0;

    list[0] = '\0';
    for (unsigned i = 0; i < n && at < bytes - 24; i++) {
        unsigned first = i;
        if (!flags[i]) {
            continue;
        }
        while (i + 1 < n && flags[i + 1]) {
            i++;
        }
        at += (size_t)snprintf(list + at, bytes - at, i > first ? "%s%u-%u" : "%s%u",
                               at != 0 ? ", " : "", first, i);
    }
    return list;
}

/* The first object is the program itself. */
static int find_base(struct dl_phdr_info *info, size_t size, void *base)
{
    (void)size;
    *(uintptr_t *)base = info->dlpi_addr;
    return 1;
}

/* addr2line prints the place and then what it was inlined into: the innermost line that is not
 * the emulator's own is the kernel's. */
static void read_places(FILE *f, char *place, size_t bytes)
{
    char line[512];

    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, " \n")] = '\0';
        const char *name = strstr(line, "kernels/");
        (void)snprintf(place, bytes, "%.*s", (int)bytes - 1, name != NULL ? name : line);
        if (strstr(line, "simt/cuda.h") == NULL && strstr(line, "simt/ptx.h") == NULL) {
            break;
        }
    }
}

static void look_up(const void *pc, char *place, size_t bytes)
{
    char self[512], command[640];
    uintptr_t base = 0;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    (void)snprintf(place, bytes, "%p", pc);
    if (n <= 0) {
        return;
    }
    self[n] = '\0';
    dl_iterate_phdr(find_base, &base);
    (void)snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%lx 2>/dev/null", self,
                   (unsigned long)((uintptr_t)pc - base - 1)); /* the call, not what follows it */
    FILE *f =
        popen(command, "r"); /* NOLINT(bugprone-command-processor,cert-env33-c): our own path */
    if (f != NULL) {
        read_places(f, place, bytes);
        pclose(f);
    }
}

/* File and line of an address of the program; the address where addr2line is not there. */
const char *simt_where(const void *pc, char *place, size_t bytes)
{
    static struct {
        const void *pc;
        char place[200];
    } known[64];
    unsigned i = 0;

    while (i < 63 && known[i].pc != NULL && known[i].pc != pc) {
        i++;
    }
    if (known[i].pc != pc) {
        look_up(pc, known[i].place, sizeof known[i].place);
        known[i].pc = pc;
    }
    (void)snprintf(place, bytes, "%s", known[i].place);
    return place;
}
