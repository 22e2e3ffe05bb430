/* clock.h: time. Deadlines and intervals are monotonic; only what a person reads is wall time. */
#ifndef ARGOSY_BASE_CLOCK_H
#define ARGOSY_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
/* Seconds since 1970, for "created" fields and logs. */
int64_t clock_wall_s(void);
uint64_t clock_wall_ns(void);

#endif
