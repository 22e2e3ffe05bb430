"""Each kind of fault once, three clusters side by side (make test-faults: each 50 times).

FAULTS_SEED=N: another run."""

import asyncio
import os

import pytest

os.environ.setdefault("FAULTS_CROWD", "100")

from tests.faults.kinds import KINDS  # noqa: E402
from tests.faults.run import Runner  # noqa: E402

SEED = int(os.environ.get("FAULTS_SEED", "1"))
AT_ONCE = 3


async def once(name, places):
    async with places:
        runner = Runner(name)
        try:
            return await runner.one(SEED, SEED)
        finally:
            await runner.finish()


@pytest.fixture(scope="module")
def outcomes(request):
    """Of the kinds that were asked for: why each failed, or None."""
    names = [i.callspec.params["name"] for i in request.session.items if i.fspath == request.node.fspath]

    async def all_of_them():
        places = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(once(name, places) for name in names))

    return dict(zip(names, asyncio.run(all_of_them())))


@pytest.mark.parametrize("name", KINDS)
def test_no_token_is_lost_doubled_or_changed(name, outcomes):
    assert outcomes[name] is None, outcomes[name]
