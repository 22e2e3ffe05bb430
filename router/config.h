/* config.h: the options of argosy-router. One struct, one table (config.c), one line each in
 * deploy/man/argosy-router.1. */
#ifndef ARGOSY_ROUTER_CONFIG_H
#define ARGOSY_ROUTER_CONFIG_H

#include "runtime/base/config.h"

struct router_config {
    char *listen;
    struct config_list models;
    struct config_list adapters; /* NAME=MODEL=PATH */
    char *policy;
    char *kv_type;
    char *fast;
    int64_t deadline_ms;
    int64_t drain_timeout_ms;
    bool die_with_parent;
    char *rpc_listen;
    char *rpc_advertise;
    char *tls_cert;
    char *tls_key;
    char *tls_ca;
    int64_t lease_ms;
    int64_t worker_wait_ms;
    int64_t moves_max;
    double moves_share;
    int64_t token_timeout_ms;
    int64_t keepalive_ms;
    char *redis;
    char *redis_password_file;
    int64_t redis_period_ms;
    int64_t redis_timeout_ms;
    char *cluster;
    char *router_id;
    int64_t workers_max;
    int64_t generations_max;
    int64_t queue_max;
    int64_t queue_wait_ms;
    int64_t queue_age_ms;
    int64_t worker_queue_max;
    int64_t prefix_index_bytes;
    int64_t out_bytes_max;
    int64_t connections_max;
    int64_t client_connections_max;
    int64_t connection_requests_max;
    int64_t header_bytes_max;
    int64_t body_bytes_max;
    int64_t bodies_bytes_max;
    int64_t request_bytes_max;
    int64_t output_bytes_max;
    int64_t header_timeout_ms;
    int64_t body_timeout_ms;
    int64_t idle_timeout_ms;
    int64_t write_timeout_ms;
    int64_t choices_max;
    int64_t stop_max;
    int64_t stop_bytes_max;
    char *auth;
    char *keys;
    bool metrics_open;
    int64_t quota_wait_ms;
    int64_t quota_lease_ms;
    char *cors_origin;
    char *otlp;
    int64_t otlp_queue_bytes;
    bool explorer;
    int64_t explorer_viewers_max;
    bool metrics;
    char *log_level;
};

extern const struct config_program router_program;

/* Splits "HOST:PORT" or "[V6]:PORT". host gets n bytes at most. */
int router_split_address(const char *text, char *host, size_t n, uint16_t *port, struct err *e);

#endif
