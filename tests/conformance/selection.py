"""Which of a module's cases a run is about."""

from __future__ import annotations

from typing import Any

import pytest


def selected(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """The values of this parameter in those tests of the requesting module that are going to run."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    parameters = [test.callspec.params for test in tests if test.module is request.module and hasattr(test, "callspec")]
    return [values[parameter] for values in parameters if parameter in values]
