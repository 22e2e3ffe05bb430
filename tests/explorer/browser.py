"""Chromium, driven over the pipe of its DevTools protocol (JSON with a NUL behind each): no driver, no
WebSocket, no port."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ANSWER_S = 60


def find():
    """Path of the browser, or None."""
    return next((p for p in map(shutil.which, PROGRAMS) if p), None)


class Browser:
    """One page. `problems`: what its console and its security policy complained of."""

    def __init__(self, program, folder, width=1280, height=900):
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()
        self.problems = []
        self.pending = b""
        self.last_id = 0
        self.answers = {}
        self.write_fd, self.read_fd = from_us, from_browser
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--mute-audio"),
            *(f"--user-data-dir={folder}", f"--window-size={width},{height}"),
            *("--remote-debugging-pipe", "about:blank"),
        ]

        def pipes():
            # The protocol wants descriptors 3 and 4; the originals may be those.
            a, b = os.dup(to_browser), os.dup(to_us)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=pipes,
        )
        os.close(to_browser)
        os.close(to_us)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.session = session
        for domain in ("Page", "Runtime", "Log", "Audits", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    session = None

    def send(self, method, params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write_fd, data):]
        return self.last_id

    def receive(self, deadline):
        while b"\0" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.read_fd], [], [], left)[0]:
                raise AssertionError("the browser does not answer")
            bytes_ = os.read(self.read_fd, 1 << 20)
            if not bytes_:
                raise AssertionError("the browser has ended")
            self.pending += bytes_
        message, self.pending = self.pending.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(params["args"])
        elif method == "Audits.issueAdded":
            if "ContentSecurityPolicy" in params["issue"]["code"]:
                self.problems.append(params["issue"])

    def call(self, method, **params):
        wanted = self.send(method, params)
        deadline = time.monotonic() + ANSWER_S
        while True:
            message = self.receive(deadline)
            if message.get("id") == wanted:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.note(message)

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)

    def dark(self, on):
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def run(self, expression):
        """The value of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = self.run(f"!!({expression})")
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s} s: {expression}")

    def press(self, key, code=0):
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, " ": 32}
        fields = {"key": key, "windowsVirtualKeyCode": code or codes[key]}
        if key in ("Enter", " "):
            fields["text"] = "\r" if key == "Enter" else " "
        self.call("Input.dispatchKeyEvent", type="keyDown", **fields)
        fields.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def picture(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write_fd)
        os.close(self.read_fd)
