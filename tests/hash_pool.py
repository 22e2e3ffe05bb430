"""A router and workers that compute nothing (benchmarks/hash_worker). Ended by process id."""

import http.client
import json
import subprocess

from tests.cluster import wait_until


class Pool:
    def __init__(self, build_dir, model, folder, fleet, args=(), look=True):
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
        if look:
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

    def generate(self, n=30, headers=None):
        body = {"model": "m", "prompt": [400 + i for i in range(40)], "max_tokens": n, "seed": 7}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), headers or {})
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
        finally:
            connection.close()

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
