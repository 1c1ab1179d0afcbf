"""What every broker owes the runtime, as tests.

```python
class TestMyBroker(BrokerSuite):
    @pytest.fixture
    def url(self): ...                  # of a running broker, or a corner of one that nobody else uses

    def make(self, url, app): ...       # an adapter, not yet open
```
"""

from tidings.testing.conformance.broker.carrying import CarryingTests
from tidings.testing.conformance.broker.coming import ComingTests
from tidings.testing.conformance.broker.sharing import SharingTests

__all__ = ["BrokerSuite"]


class BrokerSuite(CarryingTests, SharingTests, ComingTests):
    """All of them. What a broker does not promise in its `guarantees` is not asked of it."""
