/* nfc.h: Unicode normalisation form C, in time O(n log n) whatever the text.
 *
 * utf8proc_NFC sorts combining marks by insertion: a megabyte of marks in falling order would take
 * it minutes. Here the sort is by counting; tables and composition are utf8proc's.
 */
#ifndef ARGOSY_TEXT_NFC_H
#define ARGOSY_TEXT_NFC_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/buf.h"

/* True when the text is surely in form C already; false when it may not be. Valid UTF-8 only. */
bool nfc_is_plain(const char *s, size_t n);

/* Appends form C of valid UTF-8. out->failed tells of missing memory; returns false for scratch. */
bool nfc_add(struct buf *out, const char *s, size_t n);

#endif
