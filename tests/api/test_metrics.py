"""/metrics as Prometheus's own parser reads it, and the line in the log that a request leaves."""

import re

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster import wait_until

SECRET = "The walrus and the carpenter"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOKENS = 7
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
BOUNDS = {
    "gen_ai_server_time_to_first_token_seconds": [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
        10.0,
    ],
    "gen_ai_server_time_per_output_token_seconds": [
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ],
    "gen_ai_server_request_duration_seconds": [
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ],
    "gen_ai_client_token_usage": [4**i for i in range(14)],
}


@pytest.fixture(scope="module")
def answered(cluster):
    """The cluster after one chat, one completion, one stream that is left, one refusal."""
    client = openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=120)
    own = {"X-Request-Id": "seen-1", "traceparent": CALLER}
    client.chat.completions.create(
        model=cluster.model, messages=[{"role": "user", "content": SECRET}], max_tokens=TOKENS,
        extra_headers=own, extra_body={"ignore_eos": True},
    )
    client.completions.create(model=cluster.model, prompt=SECRET, max_tokens=1,
                              extra_headers={"X-Request-Id": "seen-2"})
    with cluster.stream(SECRET, max_tokens=500, ignore_eos=True) as stream:
        next(stream)
    cluster.request("POST", "/v1/completions", {"model": cluster.model, "prompt": SECRET, "n": -1})
    return cluster


def families(cluster):
    status, text = cluster.request("GET", "/metrics")
    assert status == 200
    found = list(text_string_to_metric_families(text))
    names = [f.name for f in found]
    assert len(names) == len(set(names)), "a family stands twice"
    return {f.name: f for f in found}


def value(family, name, **labels):
    found = [s.value for s in family.samples
             if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, family.samples)
    return found[0]


def test_every_series_is_whole(answered):
    found = families(answered)
    for family in found.values():
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert family.documentation
        assert len({(s.name, *sorted(s.labels.items())) for s in family.samples}) == len(
            family.samples
        )
        if family.type == "histogram":
            check_histogram(family)


def check_histogram(family):
    series = {}
    for s in family.samples:
        key = tuple(sorted((k, v) for k, v in s.labels.items() if k != "le"))
        series.setdefault(key, {}).setdefault(s.name.removeprefix(family.name), []).append(s)
    for parts in series.values():
        buckets = [(float(s.labels["le"]), s.value) for s in parts["_bucket"]]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
        counts = [n for _, n in buckets]
        assert counts == sorted(counts)
        assert counts[-1] == parts["_count"][0].value
        assert len(parts["_sum"]) == 1 and parts["_sum"][0].value >= 0


def test_vllms_names_count_what_was_asked(answered):
    found = families(answered)
    model = {"model_name": answered.model}
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds",
                 "e2e_request_latency_seconds", "request_queue_time_seconds",
                 "request_prefill_time_seconds", "request_decode_time_seconds",
                 "request_inference_time_seconds", "request_prompt_tokens",
                 "request_generation_tokens", "request_time_per_output_token_seconds"):
        family = found["vllm:" + name]
        assert value(family, f"vllm:{name}_count", **model) >= 1, name
    tokens = found["vllm:request_generation_tokens"]
    assert value(tokens, "vllm:request_generation_tokens_sum", **model) == TOKENS + 1
    done = found["vllm:request_success"]
    assert value(done, "vllm:request_success_total", finished_reason="length", **model) == 2


@pytest.mark.parametrize("name", BOUNDS)
def test_opentelemetrys_names_and_bounds(answered, name):
    family = families(answered)[name]
    operations = {s.labels["gen_ai_operation_name"] for s in family.samples}
    assert "chat" in operations
    for s in family.samples:
        assert s.labels["gen_ai_provider_name"] == "argosy"
        assert s.labels["gen_ai_request_model"] == answered.model
    bounds = [float(s.labels["le"]) for s in family.samples
              if s.name.endswith("_bucket") and s.labels["gen_ai_operation_name"] == "chat"
              and s.labels.get("gen_ai_token_type") in (None, "input")
              and "error_type" not in s.labels]
    assert bounds == [*map(float, BOUNDS[name]), float("inf")]


def test_token_usage_by_type(answered):
    usage = families(answered)["gen_ai_client_token_usage"]
    chat = {"gen_ai_operation_name": "chat"}
    out = value(usage, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **chat)
    assert out == TOKENS
    assert value(usage, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **chat) > 10


def test_a_client_that_left_is_an_error_of_its_duration(answered):
    def seen():
        family = families(answered)["gen_ai_server_request_duration_seconds"]
        return [s.value for s in family.samples
                if s.name.endswith("_count") and s.labels.get("error_type") == "_OTHER"]

    assert wait_until(seen, 10, "the client's leaving is counted") == [1]


def log_line(cluster, request):
    pattern = re.compile(rf"info +argosy-router\S* request id={request} .*")
    found = wait_until(lambda: pattern.search(cluster.err.read_text()), 10, "the line is there")
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', found.group()))


def test_a_request_leaves_one_line(answered):
    facts = log_line(answered, "seen-1")
    assert facts["path"] == "/v1/chat/completions" and facts["status"] == "200"
    assert facts["model"] == f'"{answered.model}"' and facts["error"] == "-"
    assert int(facts["output_tokens"]) == TOKENS and int(facts["prompt_tokens"]) > 10
    assert 0 < float(facts["ttft_ms"]) <= float(facts["ms"])
    assert facts["worker"] != "-" and facts["moves"] == "0"
    assert facts["trace"] == CALLER.split("-")[1]
    assert answered.err.read_text().count("id=seen-1 ") == 1
    assert log_line(answered, "seen-2")["path"] == "/v1/completions"


def test_nothing_of_a_prompt_is_logged(answered):
    said = answered.err.read_text()
    assert "walrus" not in said
