/* jinja_filters.h: inside the template interpreter: the filters of numbers and sequences, for the
 * table. args->v[0] is what is filtered. */
#ifndef ARGOSY_TEXT_JINJA_FILTERS_H
#define ARGOSY_TEXT_JINJA_FILTERS_H

#include "runtime/text/jinja_rt.h"

typedef int jinja_filter_fn(struct jrt *rt, struct jargs *args, struct jval *out);

jinja_filter_fn f_abs, f_float, f_int, f_round;
jinja_filter_fn f_batch, f_dictsort, f_first, f_items, f_join, f_last, f_length, f_list, f_map,
    f_max, f_min, f_reject, f_rejectattr, f_reverse, f_select, f_selectattr, f_slice, f_sort, f_sum,
    f_unique;

#endif
