"""What every store owes the runtime, as tests.

```python
class TestMyStore(StoreSuite):
    @pytest.fixture
    async def store(self): ...          # an open, empty store
    @pytest.fixture
    async def other(self, store): ...   # a second one on the same data, as another process would have it
    @pytest.fixture
    def pass_time(self): ...            # an async function that lets some seconds of lease time pass
```
"""

from tidings.testing.conformance.store.groups import GroupTests
from tidings.testing.conformance.store.held import HeldTests
from tidings.testing.conformance.store.log import LogTests
from tidings.testing.conformance.store.transactions import TransactionTests

__all__ = ["StoreSuite"]


class StoreSuite(LogTests, TransactionTests, HeldTests, GroupTests):
    """All of them."""
