"""What the tests of actors share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
