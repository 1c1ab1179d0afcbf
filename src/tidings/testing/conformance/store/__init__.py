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
from tidings.testing.conformance.store.one_writer import OneWriterTests
from tidings.testing.conformance.store.transactions import TransactionTests
from tidings.testing.conformance.store.watching import WatchingTests

__all__ = ["OneWriterSuite", "StoreSuite"]


class StoreSuite(LogTests, WatchingTests, TransactionTests, HeldTests, GroupTests):
    """All of them."""


class OneWriterSuite(StoreSuite, OneWriterTests):
    """And those for a store on which one transaction at a time has everything for itself."""
