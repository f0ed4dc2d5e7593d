"""Every test ends with the leak check: see leaks.py for what counts.

The fixture is automatic and lives here, at the top, so it is set up before every fixture that a
test asks for and torn down after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from hypervisor import Machine
from tests import leaks

hypothesis.settings.register_profile("xenidc", deadline=None)  # no test asserts how long it takes
hypothesis.settings.load_profile("xenidc")

# A spare process takes a quarter of a second of a processor, and a test that ends soon would only
# kill it; tests that are about spares say how many they want.
_defaults = Machine.__init__.__kwdefaults__
assert _defaults is not None
_defaults["spares"] = 0


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the test that leaves a descriptor, thread, child, mapping or /dev/shm entry."""
    before = leaks.snapshot()
    yield
    if leaked := leaks.leaked_since(before):
        pytest.fail("left behind:\n  " + "\n  ".join(leaked), pytrace=False)
