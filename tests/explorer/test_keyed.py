"""A router that asks for keys: the page asks for one too, and so does `argosy top`."""

import subprocess

import pytest

from tests.explorer.conftest import FLEET
from tests.hash_pool import Pool


@pytest.fixture
def keyed(build_dir, hash_model, tmp_path):
    """(port, key): a router with keys, and no worker."""
    keys = tmp_path / "keys"
    made = subprocess.run([build_dir / "argosy", "key", "create", "--keys", keys, "--name", "a"],
                          capture_output=True, text=True, timeout=30)
    assert made.returncode == 0, made.stderr
    pool = Pool(build_dir, hash_model, tmp_path, [], ("--auth", "keys", "--keys", keys), look=False)
    pool.join(*FLEET[0])
    yield pool, made.stdout.strip()
    pool.close()


def test_the_page_asks_for_a_key(keyed, browser):
    pool, key = keyed
    browser.size(1280, 900)
    browser.open(pool.url + "/explorer")
    browser.wait("document.getElementById('key-form')?.hidden === false")
    assert browser.run("document.activeElement.id") == "api-key"
    for secret, rows in (("ak-wrong", 0), (key, 3)):
        browser.run(f"document.getElementById('api-key').value = '{secret}'")
        browser.press("Enter")
        if rows:
            browser.wait(f"document.querySelectorAll('#workers tbody th').length === {rows}")
        else:
            browser.wait("document.getElementById('live').textContent === 'a key is wanted'")
    assert browser.run("document.getElementById('key-form').hidden")
    assert browser.run("document.getElementById('live').textContent") == "live"
    # The browser itself notes each 401.
    assert all("401" in str(p) for p in browser.problems), browser.problems
    browser.problems.clear()


def test_top_takes_it_from_a_file(keyed, build_dir, tmp_path):
    pool, key = keyed
    command = [build_dir / "argosy", "top", "--once", "--url", pool.url]
    without = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert without.returncode == 1 and "401" in without.stderr
    (tmp_path / "key").write_text(key + "\n")
    done = subprocess.run([*command, "--key-file", tmp_path / "key"], capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 0 and done.stdout.startswith("argosy "), done.stderr
