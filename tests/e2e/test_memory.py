"""Memory stays flat over many requests."""

from concurrent.futures import ThreadPoolExecutor

from tests.cluster import rss_bytes

REQUESTS = 1000
WARM_UP = 200
# What glibc's allocator may keep in its arenas without a leak of ours.
SLACK_BYTES = 4 << 20


def test_a_thousand_requests_leave_memory_flat(start_cluster, record_property):
    cluster = start_cluster(workers=1)
    pids = {p: cluster.pid(p) for p in ("argosy-router", "argosy-worker", "redis-server")}

    def ask(i):
        if i % 2:
            with cluster.stream(f"Count from {i}.", max_tokens=4) as stream:
                return "".join(stream.texts())
        return cluster.ask(f"Count from {i}.", max_tokens=4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(WARM_UP)))
        before = {name: rss_bytes(pid) for name, pid in pids.items()}
        list(pool.map(ask, range(WARM_UP, WARM_UP + REQUESTS)))
        after = {name: rss_bytes(pid) for name, pid in pids.items()}
    for name in pids:
        words = f"{before[name] >> 10} KiB before, {after[name] >> 10} KiB after"
        print(f"{name}: {words}")
        record_property(name, words)
    assert all(cluster.pid(p) == pid for p, pid in pids.items())
    assert all(after[n] - before[n] < SLACK_BYTES for n in pids), (before, after)
