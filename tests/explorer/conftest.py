"""A pool of workers that compute nothing (benchmarks/hash_worker), of several kinds, with a router."""

import http.client
import json
import subprocess
import threading
import time

import pytest

from tests.cluster import wait_until
from tests.explorer.browser import Browser, find

# What a worker says of itself goes into the page: it must stay text.
HOSTILE = '"><img src=x onerror=alert(1)>'
FLEET = [
    ("rotterdam", "cuda:NVIDIA H100 80GB HBM3", "eu-west", "2.2", 3),
    ("tromso", "cuda:NVIDIA GeForce RTX 4090", "eu-north", "0.45", 2),
    ("pune", "cpu:AMD EPYC 9654", "ap-south", "0", 2),
    ("rogue", f"cpu:{HOSTILE}", HOSTILE, "0.1", 1),
]


class Pool:
    def __init__(self, build_dir, model, folder, fleet=FLEET, args=()):
        self.build_dir, self.model, self.folder = build_dir, f"m={model}", folder
        self.socket = f"unix:{folder}/rpc"
        self.log = folder / "router.log"
        self.processes = {}
        with self.log.open("wb") as log:
            command = [build_dir / "argosy-router", "--models", self.model, "--die-with-parent",
                       "--listen", "127.0.0.1:0", "--rpc-listen", self.socket, *args]
            self.processes["router"] = subprocess.Popen(command, stderr=log)
        self.port = int(wait_until(self.find_port, 30, "the router is up"))
        self.url = f"http://127.0.0.1:{self.port}"
        for name, device, region, price, n in fleet:
            self.join(name, device, region, price, n)
        self.size = sum(f[-1] for f in fleet)
        wait_until(lambda: self.json("/explorer/snapshot")["router"]["workers"] == self.size, 30,
                   "all workers are there")

    def find_port(self):
        words = self.log.read_text().split()
        return next((w[5:] for w in words if w.startswith("port=")), None)

    def join(self, name, device, region, price="0", n=1):
        self.processes[name] = subprocess.Popen([
            self.build_dir / "benchmarks/hash_worker/hash_worker", "--model", self.model,
            "--routers", self.socket, "--id", name, "--workers", str(n), "--device", device,
            "--labels", f"region={region}", "--price", price, "--step-us", "20000",
            "--sequences-max", "8", "--prefill-rate", "2000", "--die-with-parent",
        ])

    def lose(self, name):
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def json(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, (response.status, text)
            return json.loads(text)
        finally:
            connection.close()

    def generate(self, n=30):
        body = {"model": "m", "prompt": [400 + i for i in range(40)], "max_tokens": n, "seed": 7}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
        finally:
            connection.close()

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def model(request):
    found = sorted((request.config.rootpath / "models/smollm2-135m").glob("*.gguf"))
    assert found, "models/fetch.py smollm2-135m brings the model"
    return found[0]


@pytest.fixture(scope="module")
def pool(build_dir, model, tmp_path_factory):
    """With a little traffic, that goes on until the module's tests are over."""
    pool = Pool(build_dir, model, tmp_path_factory.mktemp("pool"))
    over = threading.Event()

    def clients():
        while not over.is_set():
            try:
                pool.generate()
            except OSError:
                time.sleep(0.1)

    threads = [threading.Thread(target=clients, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    yield pool
    over.set()
    for t in threads:
        t.join(60)
    pool.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find()
    if not program:
        pytest.skip("there is no chromium: deploy/setup.sh test installs it")
    browser = Browser(program, tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, pool):
    """The explorer, live."""
    browser.size(1280, 900)
    browser.dark(False)
    browser.problems.clear()
    browser.open("about:blank")
    browser.open(pool.url + "/explorer")
    browser.wait(f"document.querySelectorAll('#workers tbody tr').length === {pool.size}")
    yield browser
    assert browser.problems == []
