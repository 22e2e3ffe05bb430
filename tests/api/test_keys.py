"""Keys as openai-python meets them: a router that asks for them, a worker with a real model, and
`argosy key`, with the keys in Redis and in a file."""

import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

from tests.cluster import wait_until

MODEL = next(Path("models/smollm2-135m").glob("*.gguf"))
NOTICED_S = 2.5


class Keyed:
    """redis-server, router and worker, on sockets below `folder`."""

    def __init__(self, build_dir, folder):
        self.build_dir, self.folder, self.processes = build_dir, folder, []
        self.redis = f"unix:{folder}/redis"
        self.file = folder / "keys"
        self.file.write_text("# keys of a file\n")
        rpc = f"unix:{folder}/rpc"
        self.run("redis", "redis-server", "--port", "0", "--unixsocket", folder / "redis",
                 "--save", "", "--dir", folder)
        self.run("router", build_dir / "argosy-router", "--die-with-parent", "--auth=keys",
                 "--listen=127.0.0.1:0", f"--rpc-listen={rpc}", f"--models=smol={MODEL}",
                 f"--redis={self.redis}", f"--keys={self.file}")
        self.run("worker", build_dir / "argosy-worker", "--die-with-parent", f"--routers={rpc}",
                 f"--model=smol={MODEL}", "--context-max=512")
        found = wait_until(lambda: re.search(r"router is up .*port=(\d+)", self.said("router")), 60,
                           "the router is up")
        self.url = f"http://127.0.0.1:{found[1]}/v1"
        wait_until(lambda: "attached" in self.said("worker"), 60, "the worker is attached")

    def said(self, name):
        return (self.folder / f"{name}.err").read_text()

    def run(self, name, *command):
        with (self.folder / f"{name}.err").open("wb") as err:
            command = [str(c) for c in command]
            self.processes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err))

    def key(self, *args, where=None):
        """What `argosy key` prints."""
        where = where or [f"--redis={self.redis}"]
        command = [self.build_dir / "argosy", "key", *args, *where]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def client(self, key):
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=120)

    def known(self, key, yes=True):
        """Waits until the router knows the key, or knows it no more. Takes none of its requests."""
        def look():
            asked = urllib.request.Request(self.url.removesuffix("/v1") + "/explorer/snapshot",
                                           headers={"Authorization": f"Bearer {key}"})
            try:
                urllib.request.urlopen(asked, timeout=30).close()
                return yes
            except urllib.error.HTTPError as e:
                assert e.code == 401
                return not yes
        wait_until(look, NOTICED_S, f"known: {yes}")
        return self.client(key)

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def keyed(build_dir, tmp_path_factory):
    keyed = Keyed(build_dir, tmp_path_factory.mktemp("keyed"))
    try:
        yield keyed
    finally:
        keyed.stop()


def ask(client, max_tokens=4, **fields):
    return client.chat.completions.with_raw_response.create(
        model="smol", messages=[{"role": "user", "content": "Hi"}], max_tokens=max_tokens,
        temperature=0, **fields)


def wait_for_room_in_the_minute():
    while time.time() % 60 > 50:
        time.sleep(0.2)


def test_401_without_a_key_and_after_it_is_revoked(keyed):
    for key in ("none", "ak-" + "0" * 64):
        with pytest.raises(openai.AuthenticationError) as e:
            ask(keyed.client(key))
        assert e.value.status_code == 401
        assert e.value.body["code"] == "invalid_api_key"
    secret = keyed.key("create", "--name=passing")
    assert re.fullmatch(r"ak-[0-9a-f]{64}", secret)
    client = keyed.known(secret)
    assert ask(client).parse().choices[0].message.content
    assert "passing" in keyed.key("list") and secret not in keyed.key("list")
    keyed.key("revoke", "passing")
    keyed.known(secret, yes=False)


def test_a_key_of_the_file(keyed):
    where = [f"--keys={keyed.file}"]
    secret = keyed.key("create", "--name=filed", "--requests=5", where=where)
    client = keyed.known(secret)
    assert ask(client).headers["x-ratelimit-limit-requests"] == "5"
    keyed.key("revoke", "filed", where=where)
    keyed.known(secret, yes=False)
    assert keyed.file.read_text().startswith("# keys of a file\n")


def test_429_and_its_headers(keyed):
    wait_for_room_in_the_minute()
    client = keyed.known(keyed.key("create", "--requests=3", "--tokens=2000"))
    left = []
    for _ in range(3):
        headers = ask(client).headers
        assert headers["x-ratelimit-limit-tokens"] == "2000"
        left.append((int(headers["x-ratelimit-remaining-requests"]),
                     int(headers["x-ratelimit-remaining-tokens"])))
    assert [r for r, _ in left] == [2, 1, 0]
    assert left[0][1] > left[1][1] > left[2][1] > 1500
    with pytest.raises(openai.RateLimitError) as e:
        ask(client)
    headers = e.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 60
    assert 0 < int(headers["retry-after-ms"]) <= 60000
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"\d+ms|[\d.]+s|\d+m\d+s", headers["x-ratelimit-reset-requests"])


def test_what_the_router_answers_itself_counts(keyed):
    wait_for_room_in_the_minute()
    client = keyed.known(keyed.key("create", "--requests=3"))
    tokenize = keyed.url.removesuffix("/v1") + "/tokenize"
    assert client.models.with_raw_response.list().headers["x-ratelimit-remaining-requests"] == "2"
    said = client.post(tokenize, body={"model": "smol", "prompt": "Hi"}, cast_to=object)
    assert said["count"] == len(said["tokens"]) > 0
    client.models.retrieve("smol")
    with pytest.raises(openai.RateLimitError):
        client.models.list()
    with pytest.raises(openai.RateLimitError):
        client.post(tokenize, body={"model": "smol", "prompt": "Hi"}, cast_to=object)
    with pytest.raises(openai.RateLimitError):
        ask(client)


def test_a_stream_counts_as_whole_answers_do(keyed):
    wait_for_room_in_the_minute()
    client = keyed.known(keyed.key("create", "--tokens=2000"))
    first = ask(client)
    usage = first.parse().usage.total_tokens
    may = int(first.headers["x-ratelimit-remaining-tokens"])
    with client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": "Hi"}], max_tokens=4,
            temperature=0, stream=True) as stream:
        assert [c for c in stream]
    third = int(ask(client).headers["x-ratelimit-remaining-tokens"])
    assert may - third == 2 * usage


def test_a_budget_ends_for_good(keyed):
    client = keyed.known(keyed.key("create", "--budget=100"))
    usage = ask(client).parse().usage.total_tokens
    assert usage < 60
    with pytest.raises(openai.RateLimitError) as e:
        ask(client, max_tokens=99 - usage)
    assert e.value.body["code"] == "insufficient_quota"
    assert e.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in e.value.response.headers


def test_403(keyed):
    client = keyed.known(keyed.key("create", "--priority=5", "--pool=trust=gold"))
    with pytest.raises(openai.PermissionDeniedError) as e:
        ask(client, extra_body={"priority": 1})
    assert e.value.body["param"] == "priority"
    with pytest.raises(openai.PermissionDeniedError) as e:
        ask(client, extra_body={"argosy": {"wants": {"trust": "lead"}}})
    assert e.value.body["code"] == "pool_not_allowed"
    # No worker here is of that pool.
    with pytest.raises(openai.InternalServerError) as e:
        ask(client)
    assert e.value.status_code == 503


def test_redis_away_leaves_keys_and_limits(keyed):
    wait_for_room_in_the_minute()
    client = keyed.known(keyed.key("create", "--requests=4", "--tokens=100000"))
    ask(client)
    redis = keyed.processes[0]
    redis.send_signal(signal.SIGKILL)
    redis.wait()
    try:
        for _ in range(3):
            assert ask(client).status_code == 200
        with pytest.raises(openai.RateLimitError):
            ask(client)
    finally:
        (keyed.folder / "redis").unlink(missing_ok=True)
