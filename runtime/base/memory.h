/* memory.h: large blocks straight from the system, on huge pages where it has them.
 *
 * Zeroed, aligned to 2 MiB, and only taken from the machine as they are touched. A process that is
 * forked does not have them: nothing that is written here is copied for it, and what is unmapped
 * here is free.
 */
#ifndef ARGOSY_BASE_MEMORY_H
#define ARGOSY_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Of the machine, in bytes; 0 when the system does not say. */
uint64_t memory_of_machine(void);
/* NULL when the system refuses. 0 bytes is a block of its own. */
void *memory_map(size_t bytes);
/* Gives the memory of a block back; the addresses stay, and read as zeros. */
void memory_forget(void *p, size_t bytes);
/* With the size that it was mapped with. NULL is fine. */
void memory_unmap(void *p, size_t bytes);

#endif
