"""What the store refuses, in the words that its clients know: names of errno values.

Only the names that xen/include/public/io/xs_wire.h lists travel on the wire, so a `StoreError` has
one of these. Quotas, for which there is no name of their own, are ENOSPC, as in xenstored.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypervisor.errors import HypercallError

ERRNOS = frozenset(
    (
        "EINVAL",
        "EACCES",
        "EEXIST",
        "EISDIR",
        "ENOENT",
        "ENOMEM",
        "ENOSPC",
        "EIO",
        "ENOTEMPTY",
        "ENOSYS",
        "EROFS",
        "EBUSY",
        "EAGAIN",
        "EISCONN",
        "E2BIG",
        "EPERM",
    )
)


class StoreError(HypercallError):
    """The store refused, and nothing was changed. ``errno`` is one of `ERRNOS`."""

    def __init__(self, errno: str, text: str) -> None:
        super().__init__(errno, text)
        self.errno = errno

    def __str__(self) -> str:
        return ": ".join(self.args)


class Compacted(HypercallError):
    """The log does not reach back to the revision that was asked for.

    Attributes:
        path: what was asked for.
        revision: of the snapshot; go on from here.
        snapshot: every node at or below the path that the caller may read, and its value; a parent
            comes before its children.
    """

    def __init__(self, path: str, revision: int, snapshot: Mapping[str, bytes]) -> None:
        super().__init__(path, revision, snapshot)
        self.path = path
        self.revision = revision
        self.snapshot = snapshot

    def __str__(self) -> str:
        return f"the changes below {self.path} are no longer all there; now is {self.revision}"
