/* log.h: one line an event on stderr: time, level, program, message, key=value pairs.
 *
 * Thread-safe: a line is one write(2). Never log prompts or generated text.
 * The message is a constant phrase; facts go in the printf part as key=value:
 *     log_info("worker joined", "id=%s pages=%u", id, pages);
 */
#ifndef ARGOSY_BASE_LOG_H
#define ARGOSY_BASE_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR, LOG_LEVEL_OFF };

/* Once, from main, before threads start. `program` is borrowed for ever. */
void log_init(const char *program, enum log_level min_level);

/* "debug" … "off" to a level; -1 when it is no level's name. */
int log_level_parse(const char *name);

void log_write(enum log_level level, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
