"""Spans as a collector gets them: OTLP over HTTP in JSON, read with OpenTelemetry's own protobufs."""

import base64
import http.server
import json
import threading
import time

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.cluster import wait_until
from tests.hash_pool import Pool

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FLEET = [("one", "cuda:H100", "eu", "0", 1), ("two", "cpu:EPYC", "us", "0", 1)]


def ids_to_base64(value):
    """OTLP/JSON writes ids as hex, protobuf's JSON bytes as base64: the one difference."""
    if isinstance(value, list):
        return [ids_to_base64(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {
        k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId")
        else ids_to_base64(v)
        for k, v in value.items()
    }


class Collector:
    """Takes what comes to /v1/traces; `answers` are the statuses that come before 200."""

    def __init__(self, answers=(), delay_s=0):
        self.bodies, self.tries = [], 0
        collector, answers = self, list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.tries += 1
                time.sleep(delay_s)
                status = answers.pop(0) if answers else 200
                if status == 200 and self.path == "/v1/traces":
                    assert self.headers["Content-Type"] == "application/json"
                    collector.bodies.append(body.decode())
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def spans(self):
        found = []
        for body in self.bodies:
            batch = json_format.ParseDict(ids_to_base64(json.loads(body)),
                                          ExportTraceServiceRequest(), ignore_unknown_fields=False)
            for resource in batch.resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                assert names["service.name"] == "argosy-router" and names["service.instance.id"]
                found += [s for scope in resource.scope_spans for s in scope.spans]
        return found

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def attributes(span):
    def plain(v):
        kind = v.WhichOneof("value")
        return [plain(x) for x in v.array_value.values] if kind == "array_value" else getattr(v, kind)

    return {a.key: plain(a.value) for a in span.attributes}


def metric(pool, name):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", pool.port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


@pytest.fixture
def start(build_dir, hash_model, tmp_path):
    """start(collector, *options): a router with two workers that sends its spans there."""
    closing = []

    def begin(collector, *options):
        pool = Pool(build_dir, hash_model, tmp_path, FLEET, ("--otlp", collector.url, *options))
        closing.extend([pool, collector])
        return pool

    yield begin
    for c in closing:
        c.close()


def roots(collector):
    return [s for s in collector.spans() if s.kind == Span.SPAN_KIND_SERVER]


def test_a_request_is_a_span_with_its_parts(start):
    collector = Collector()
    pool = start(collector)
    before_ns = time.time_ns()
    pool.generate(9, {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"})
    root = wait_until(lambda: roots(collector), 20, "the span is there")[0]
    assert root.name == "text_completion m"
    assert root.trace_id.hex() == TRACE and root.parent_span_id.hex() == PARENT
    facts = attributes(root)
    assert facts["gen_ai.operation.name"] == "text_completion"
    assert facts["gen_ai.provider.name"] == "argosy"
    assert facts["gen_ai.request.model"] == facts["gen_ai.response.model"] == "m"
    assert facts["gen_ai.usage.input_tokens"] == 40
    assert facts["gen_ai.usage.output_tokens"] == 9 == facts["gen_ai.request.max_tokens"]
    assert facts["gen_ai.response.finish_reasons"] == ["length"]
    assert facts["http.route"] == "/v1/completions" and facts["http.response.status_code"] == 200
    assert facts["argosy.request.id"] == "mine" and facts["argosy.moves"] == 0
    assert facts["argosy.worker.id"] in ("one", "two")
    assert "error.type" not in facts and root.status.code == Status.STATUS_CODE_UNSET
    assert [e.name for e in root.events] == ["first_token"]
    assert before_ns <= root.start_time_unix_nano < root.end_time_unix_nano <= time.time_ns()
    parts = sorted((s for s in collector.spans() if s.parent_span_id == root.span_id),
                   key=lambda s: s.start_time_unix_nano)
    assert [s.name for s in parts] == ["queue", "prefill", "decode"]
    edges = [root.start_time_unix_nano, *(s.end_time_unix_nano for s in parts)]
    assert [s.start_time_unix_nano for s in parts] == edges[:3]
    assert edges[-1] <= root.end_time_unix_nano
    assert len({s.span_id for s in [root, *parts]}) == 4
    assert all(s.trace_id == root.trace_id for s in parts)


def test_a_move_is_seen(start):
    collector = Collector()
    pool = start(collector)
    thread = threading.Thread(target=pool.generate, args=(150,))
    thread.start()

    def who():
        workers = pool.json("/explorer/snapshot")["workers"]
        return next((w["id"] for w in workers if w["inflight"] and w["tokens"] > 5), None)

    first = wait_until(who, 20, "it runs")
    pool.lose(first)
    thread.join(60)
    root = wait_until(lambda: roots(collector), 20, "the span is there")[0]
    facts = attributes(root)
    assert facts["argosy.moves"] == 1 and facts["gen_ai.usage.output_tokens"] == 150
    assert [e.name for e in root.events] == ["first_token", "move"]
    moved = attributes(root.events[1])
    other = {"one": "two", "two": "one"}[first]
    assert (moved["argosy.worker.from"], moved["argosy.worker.to"]) == (first, other)
    at = [(s.name, attributes(s)["argosy.worker.id"]) for s in collector.spans()
          if s.kind == Span.SPAN_KIND_CLIENT]
    assert at == [("prefill", first), ("decode", first), ("prefill", other), ("decode", other)]


def test_what_is_not_sampled_is_not_sent_and_a_new_trace_is(start):
    collector = Collector()
    pool = start(collector)
    pool.generate(2, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    pool.generate(2, {"traceparent": "00-not-a-trace-01"})
    found = wait_until(lambda: roots(collector), 20, "the span is there")
    assert len(found) == 1
    assert found[0].parent_span_id == b"" and len(found[0].trace_id) == 16


def test_a_refused_request_is_an_error(start):
    collector = Collector()
    pool = start(collector)
    with pytest.raises(AssertionError, match="max_tokens"):
        pool.generate(-1)
    root = wait_until(lambda: roots(collector), 20, "the span is there")[0]
    assert root.name == "POST /v1/completions" and root.status.code == Status.STATUS_CODE_ERROR
    assert attributes(root)["error.type"] == "invalid_request"


def test_a_collector_that_fails_gets_them_again(start):
    collector = Collector(answers=[503])
    pool = start(collector)
    pool.generate(2)
    assert len(wait_until(lambda: roots(collector), 20, "the second try is taken")) == 1
    assert metric(pool, "argosy_span_batches_failed_total") == 1
    assert metric(pool, "argosy_spans_dropped_total") == 0
    wait_until(lambda: metric(pool, "argosy_spans_sent_total") == len(collector.spans()), 10, "counted")


def test_what_is_not_wanted_is_dropped_and_counted(start):
    collector = Collector(answers=[400])
    pool = start(collector)
    pool.generate(2)
    wait_until(lambda: metric(pool, "argosy_spans_dropped_total") == 4, 20, "they are dropped")
    pool.generate(2)
    assert wait_until(lambda: roots(collector), 20, "the next are taken")


def test_a_full_queue_holds_nobody_up(start):
    collector = Collector(delay_s=5)
    pool = start(collector, "--otlp-queue-bytes", "64k")
    for _ in range(80):
        pool.generate(1)
    assert metric(pool, "argosy_spans_dropped_total") > 0
    assert collector.bodies == [] or metric(pool, "argosy_spans_sent_total") > 0


def test_a_router_that_ends_sends_what_waits(start):
    collector = Collector()
    pool = start(collector)
    pool.generate(2)
    pool.processes["router"].terminate()
    pool.processes["router"].wait(20)
    assert len(roots(collector)) == 1
