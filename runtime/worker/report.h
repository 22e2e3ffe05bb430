/* report.h: what a step did, as one Step frame for each router that has a part in it. */
#ifndef ARGOSY_WORKER_REPORT_H
#define ARGOSY_WORKER_REPORT_H

#include "runtime/engine/engine.h"
#include "runtime/worker/attachment.h"
#include "runtime/worker/jobs.h"

/* Sends the deltas of `owner`'s jobs, if there are any. 0, or ERR_NOMEM: nothing was sent. */
int report_step(struct attachment *owner, struct jobs *jobs, const struct engine_step *step,
                uint64_t step_number, struct err *e);

/* Forgets the jobs that the step finished. After every report. */
void report_retire(struct jobs *jobs, const struct engine_step *step);

#endif
