import sqlite3
from functools import partial

import pytest

from tests.systems.counting import Statements


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Return what counts the statements of every connection that is opened from here on."""
    counted = Statements()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=counted.connection()))
    return counted
