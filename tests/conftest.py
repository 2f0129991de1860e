"""What all tests share: skipping, with its reason, what needs a tool that is not there; laws that no clock decides."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says what else the machine does.
settings.register_profile("without_clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without_clock")


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
