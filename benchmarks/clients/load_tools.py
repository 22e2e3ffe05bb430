"""guidellm and aiperf against `argosy up`: what they measure, and whether a request failed.

    benchmarks/clients/load_tools.py [requests]      (make bench-clients; in build/venv)

Offline: the tokenizer that both count with is made from the model's own GGUF file. Ends with
status 1 if any request of any run failed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.cluster import Cluster  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

MODEL = "smollm2-135m"
STREAMS = 8
PROMPT_TOKENS = 128
OUTPUT_TOKENS = 64
RUN_S = 900
COLUMNS = "{:10} {:12} {:>9} {:>7} {:>11} {:>13} {:>12} {:>11}"


def save_tokenizer(home):
    """As a repository in a cache of the hub, which is where aiperf looks when it is offline."""
    repository = home / f"hub/models--argosy--{MODEL}"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    file = next((ROOT / "models" / MODEL).glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(repository / "snapshots" / commit)
    return repository / "snapshots" / commit


def run(command, env):
    done = subprocess.run(
        [str(c) for c in command], env=env, timeout=RUN_S, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def guidellm(url, tokenizer, api, requests, out, env):
    report = out / f"guidellm-{api}.json"
    path = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}[api]
    run(
        [
            *(ROOT / "build/peers/guidellm/bin/guidellm", "run", "--disable-console"),
            *("--backend", f"kind=openai_http,target={url},model={MODEL},request_format={path}"),
            *("--profile", f"kind=concurrent,streams={STREAMS}"),
            *("--constraint", f"kind=max_requests,count={requests}"),
            *("--tokenizer", f"kind=hf_auto,model={tokenizer}"),
            *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},"
              f"output_tokens={OUTPUT_TOKENS}"),
            *("--output", f"kind=json,path={report}"),
        ],
        env,
    )
    metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]

    def of(name, which):
        found = metrics[name]["successful"]
        return found["mean"] if which == "mean" else found["percentiles"][which]

    return {
        "done": totals["successful"],
        "failed": totals["errored"] + totals["incomplete"],
        "requests_s": of("requests_per_second", "mean"),
        "tokens_s": of("output_tokens_per_second", "mean"),
        "ttft_ms": of("time_to_first_token_ms", "p50"),
        "itl_ms": of("inter_token_latency_ms", "p50"),
    }


def aiperf(url, tokenizer, api, requests, out, env):
    folder = out / f"aiperf-{api}"
    run(
        [
            *(ROOT / "build/peers/aiperf/bin/aiperf", "profile", "-m", MODEL, "--url", url),
            *("--endpoint-type", api, "--streaming", "--tokenizer", f"argosy/{MODEL}"),
            *("--request-count", requests, "--concurrency", STREAMS, "--ui", "none"),
            *("--synthetic-input-tokens-mean", PROMPT_TOKENS),
            *("--output-tokens-mean", OUTPUT_TOKENS, "--extra-inputs", "ignore_eos:true"),
            *("--artifact-dir", folder),
        ],
        env,
    )
    report = json.loads((folder / "profile_export_aiperf.json").read_text())
    done = int(report["request_count"]["avg"])
    return {
        "done": done,
        "failed": requests - done + len(report["error_summary"]),
        "requests_s": report["request_throughput"]["avg"],
        "tokens_s": report["output_token_throughput"]["avg"],
        "ttft_ms": report["time_to_first_token"]["p50"],
        "itl_ms": report["inter_token_latency"]["p50"],
    }


def main():
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    failed = 0
    with tempfile.TemporaryDirectory(prefix="argosy-clients-") as folder:
        out = Path(folder)
        tokenizer = save_tokenizer(out / "hf")
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf")}
        cluster = Cluster(ROOT / "build/release/argosy", out, model=MODEL)
        try:
            cluster.wait_ready()
            print(f"{MODEL}, {STREAMS} at once, prompts of {PROMPT_TOKENS} tokens, ", end="")
            print(f"answers of {OUTPUT_TOKENS}, {requests} requests each\n")
            print(COLUMNS.format("tool", "API", "requests", "failed", "requests/s", "out tokens/s",
                                 "TTFT p50 ms", "ITL p50 ms"))  # fmt: skip
            for tool in (guidellm, aiperf):
                for api in ("chat", "completions"):
                    r = tool(cluster.url.removesuffix("/v1"), tokenizer, api, requests, out, env)
                    figures = [f"{r[k]:.1f}" for k in ("requests_s", "tokens_s", "ttft_ms", "itl_ms")]
                    print(COLUMNS.format(tool.__name__, api, r["done"], r["failed"], *figures))
                    failed += r["failed"]
        finally:
            cluster.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
