"""A back end that counts in a file, which cannot be done twice without being seen."""

from __future__ import annotations

import os
from typing import Any

from transport import BackEnd, Request


class Counter(BackEnd):
    """Body: (id, "inline" or "offload"); appends the id, a line, to the file."""

    def on_start(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def on_stop(self) -> None:
        os.close(self._file)

    def on_request(self, request: Request) -> Any:
        number, how = request.body
        if how == "offload":
            return self.offload(self.count, number)
        return self.count(number)

    def count(self, number: int) -> int:
        os.write(self._file, b"%d\n" % number)
        return number
