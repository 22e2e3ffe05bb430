/* jinja_methods.h: inside the template interpreter: methods of str, for the table. */
#ifndef ARGOSY_TEXT_JINJA_METHODS_H
#define ARGOSY_TEXT_JINJA_METHODS_H

#include "runtime/text/jinja_rt.h"

typedef int jinja_method_fn(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out);

jinja_method_fn str_split, str_rsplit, str_splitlines, str_partition, str_rpartition, str_count,
    str_startswith, str_endswith, str_removeprefix, str_removesuffix, str_find_method, str_rfind,
    str_index, str_rindex;

/* From min to max positional arguments, and no keyword. */
int method_args(struct jrt *rt, const struct jargs *args, uint32_t min, uint32_t max);
int method_want_str(struct jrt *rt, struct jval v);

#endif
