"""The suites are shipped inside the package; their assertions explain themselves all the same."""

import pytest

pytest.register_assert_rewrite("tidings.testing.conformance")
