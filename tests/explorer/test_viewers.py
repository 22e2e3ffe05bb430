"""Viewers that do not read: the router lets go of them, and of what it kept for them."""

import socket

from tests.cluster import rss_bytes, wait_until
from tests.hash_pool import Pool

VIEWERS = 8
# What a snapshot of so many workers fills in the sockets' own buffers is full after seconds.
WORKERS = 250


def test_a_viewer_that_does_not_read_is_dropped(build_dir, hash_model, tmp_path):
    pool = Pool(build_dir, hash_model, tmp_path, [("w", "cpu:x", "r", "0", WORKERS)])
    try:
        assert len(pool.json("/explorer/snapshot")["workers"]) == WORKERS
        before = rss_bytes(pool.processes["router"].pid)
        viewers = []
        for _ in range(VIEWERS):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", pool.port))
            s.sendall(b"GET /explorer/events HTTP/1.1\r\nHost: x\r\n\r\n")
            viewers.append(s)
        router = lambda: pool.json("/explorer/snapshot")["router"]
        wait_until(lambda: router()["viewers"] == VIEWERS, 20, "all look")
        wait_until(lambda: router()["viewers"] == 0, 90, "all are dropped")
        # At most a snapshot each, of some 120 kB, was kept.
        assert rss_bytes(pool.processes["router"].pid) - before < 16 << 20
        for s in viewers:
            s.close()
    finally:
        pool.close()
