"""A filter that lets nobody change a disk, whatever the disk would allow.

Every request that is not known to change nothing is refused with EROFS, and INFO says read-only.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from examples.block import protocol as p
from transport import Filter, Offloaded, Request

_HARMLESS: Final = frozenset({p.READ, p.FLUSH, p.CACHE, p.BLOCK_STATUS})


class ReadOnlyFilter(Filter):
    """See the top of the module. No start arguments."""

    def on_request(self, request: Request) -> Any:
        operation = request.body[0]
        if operation == p.INFO:
            return self._info(self.below.on_request(request))
        if operation not in _HARMLESS:
            raise OSError(errno.EROFS, "this disk is read-only")
        return self.below.on_request(request)

    def _info(self, result: Any) -> Any:
        if type(result) is Offloaded:
            return Offloaded(lambda: self._info(result.run()), (), begun=result.begun)
        size, _ = result
        return [size, 1]
