"""Stand-ins for the programs around `argosy`, so that it can be tested alone.

`argosy` looks for its sisters in its own directory: Tree makes a directory with a copy of it and
with scripts under the sisters' names."""

import http.server
import json
import shutil
import sys
import threading

# Serves /ready; ends at SIGTERM. `--listen HOST:PORT` as the real one.
ROUTER = """
import http.server, sys
host, port = sys.argv[sys.argv.index("--listen") + 1].rsplit(":", 1)
print("argv", *sys.argv[1:], flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""
WORKER = "import time\nprint('stub worker', flush=True)\ntime.sleep(600)\n"
FAILING = "import sys\nprint('the weights are made of cheese', file=sys.stderr)\nsys.exit(3)\n"


class Tree:
    def __init__(self, argosy, folder, router=ROUTER, worker=WORKER):
        bin_dir = folder / "build" / "stub"
        bin_dir.mkdir(parents=True)
        self.argosy = bin_dir / "argosy"
        shutil.copy(argosy, self.argosy)
        for name, script in (("argosy-router", router), ("argosy-worker", worker)):
            path = bin_dir / name
            path.write_text(f"#!{sys.executable}\n{script}")
            path.chmod(0o755)
        self.model("tiny", {"file": "tiny.gguf"}).joinpath("tiny.gguf").write_bytes(b"GGUF")

    def model(self, name, description):
        """Adds models/NAME/model.json beside build/, as in the source tree."""
        folder = self.argosy.parent.parent.parent / "models" / name
        folder.mkdir(parents=True)
        folder.joinpath("model.json").write_text(json.dumps(description))
        return folder


def delta(text):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) + "\n\n"


class Endpoint:
    """An OpenAI endpoint that answers what `reply(request as dict)` returns: (status, list of
    pieces sent one by one). Keeps the requests."""

    def __init__(self, reply):
        self.requests = []
        self.authorizations = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, kind, pieces):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in pieces:
                    data = piece if isinstance(piece, bytes) else piece.encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            def do_GET(self):
                listed = json.dumps({"object": "list", "data": [{"id": "stub-1"}]})
                self.answer(200, "application/json", [listed])

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                endpoint.requests.append((self.path, request))
                endpoint.authorizations.append(self.headers["Authorization"])
                status, pieces = reply(request)
                try:
                    self.answer(status, "text/event-stream", pieces)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
