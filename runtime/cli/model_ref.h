/* model_ref.h: from what the user typed after --model to a name and a path.
 *
 * A folder NAME under a models/ directory is meant by its name: its model.json says which file.
 * Anything with a slash, or that ends in .gguf, is the path of a file or a folder, served under its
 * own name. NAME=PATH gives a path a name.
 */
#ifndef ARGOSY_CLI_MODEL_REF_H
#define ARGOSY_CLI_MODEL_REF_H

#include <limits.h>

#include "runtime/base/err.h"

#define MODEL_NAME_BYTES 128

struct model_ref {
    char name[MODEL_NAME_BYTES]; /* what requests call it */
    char path[PATH_MAX];         /* the GGUF file or the folder; it was there a moment ago */
};

/* `dirs`: models/ directories to look in, in order, NULL-terminated. */
int model_ref_resolve(const char *typed, const char *const *dirs, struct model_ref *out,
                      struct err *e);

#endif
