/* version.h: what --version, the wire's Hello and user agents say. */
#ifndef ARGOSY_BASE_VERSION_H
#define ARGOSY_BASE_VERSION_H

#define ARGOSY_VERSION "0.1.0"

#endif
