"""A pool of several kinds of workers that compute nothing, and a browser."""

import threading
import time

import pytest

from tests.explorer.browser import Browser, find
from tests.hash_pool import Pool

# What a worker says of itself goes into the page: it must stay text.
HOSTILE = '"><img src=x onerror=alert(1)>'
FLEET = [
    ("rotterdam", "cuda:NVIDIA H100 80GB HBM3", "eu-west", "2.2", 3),
    ("tromso", "cuda:NVIDIA GeForce RTX 4090", "eu-north", "0.45", 2),
    ("pune", "cpu:AMD EPYC 9654", "ap-south", "0", 2),
    ("rogue", f"cpu:{HOSTILE}", HOSTILE, "0.1", 1),
]


@pytest.fixture(scope="module")
def pool(build_dir, hash_model, tmp_path_factory):
    """With a little traffic, that goes on until the module's tests are over."""
    pool = Pool(build_dir, hash_model, tmp_path_factory.mktemp("pool"), FLEET)
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
