"""Removes a unix socket's file when the process that listens on it has ended, however it ended.

Run as a process of its own by socketfile.py, ``python -I -S socket_janitor.py PATH`` and the file's
`identity`, in a session of its own so that Ctrl-C at the terminal does not reach it. It waits for
the end of its standard input, a pipe whose other end only the listening process holds: SIGKILL
closes it too.

A file that is not the guarded one any more is a successor's, and stays. Looking and removing happen
under a lock (flock) on the directory that a successor takes as well (socketfile.py), so that
nothing comes between them. Imports next to nothing: it has to be cheap and cannot depend on an
environment.

Specifications: unix(7), flock(2).
"""

from __future__ import annotations

import fcntl
import os
import sys


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a socket's file from every other.

    The inode number alone does not: a file system may give it to the next file at once. The time of
    a socket's last change is that of its creation: nothing is ever written to it, and a change of
    its mode does not count.
    """
    return status.st_dev, status.st_ino, status.st_mtime_ns


def remove(path: str, guarded: tuple[int, ...]) -> None:
    """Unlink ``path`` if it is still that very file."""
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the whole directory has gone, and the file with it
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if identity(os.lstat(path)) == guarded:
            os.unlink(path)
    except FileNotFoundError:
        pass  # somebody removed it by hand
    finally:
        os.close(directory)


def main() -> None:
    path, *guarded = sys.argv[1:]
    while os.read(0, 4096):
        pass
    remove(path, tuple(map(int, guarded)))


if __name__ == "__main__":
    main()
