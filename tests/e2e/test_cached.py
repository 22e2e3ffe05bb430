"""A prompt that a worker has in its cache goes to that worker, and the usage says what it saved."""

import http.client
import json

PROMPTS = 6


def ask(cluster, body):
    """(worker, usage) of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=120)
    try:
        head = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
        return response.headers["X-Argosy-Worker"], json.loads(text)["usage"]
    finally:
        connection.close()


def test_a_long_prompt_goes_back_to_who_has_it(start_cluster):
    cluster = start_cluster(workers=2)
    for i in range(PROMPTS):
        facts = " ".join(f"Box {n} of room {i} holds {n * (i + 7)} nails." for n in range(50))
        body = cluster.body(facts + " How many boxes are there?", max_tokens=4)
        first, usage = ask(cluster, body)
        # What two prompts have in common: the system's words, a block or two.
        assert usage["prompt_tokens_details"]["cached_tokens"] < 64
        for _ in range(2):
            again, usage = ask(cluster, body)
            assert again == first
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            # All whole blocks of 16 but the one with the last token.
            assert cached == (usage["prompt_tokens"] - 1) // 16 * 16
