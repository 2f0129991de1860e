"""What all tests share: skipping, with its reason, what needs a tool of the system that is not there."""

import os
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool is missing; where CI says that it must be there, fail it."""
    for marker in item.iter_markers("needs_tool"):
        missing = [tool for tool in marker.args if shutil.which(tool) is None]
        if not missing:
            continue
        reason = f"needs {', '.join(missing)}, which is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
