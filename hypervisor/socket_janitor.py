"""Removes a unix socket's file when the process that listens on it has ended, however it ended.

Run as a process of its own by socketfile.py: ``python -I -S socket_janitor.py PATH DEVICE INODE``,
in a session of its own so that Ctrl-C at the terminal does not reach it. It waits for the end of
its standard input, a pipe whose other end only the listening process holds: SIGKILL closes it too.

A file that is not the guarded one any more (another device or inode number) is a successor's, and
stays. Looking and removing happen under a lock (flock) on the directory that a successor takes as
well (socketfile.py), so that nothing comes between them. Imports nothing but the standard
library's smallest: it has to be cheap and cannot depend on an environment.

Specifications: unix(7), flock(2).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys


def remove(path: str, device: int, inode: int) -> None:
    """Unlink ``path`` if it is still that very file."""
    try:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the whole directory has gone, and the file with it
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) == (device, inode):
            os.unlink(path)
    except FileNotFoundError:
        pass  # somebody removed it by hand
    finally:
        os.close(directory)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its process, not before
    path, device, inode = sys.argv[1:]
    while os.read(0, 4096):
        pass
    remove(path, int(device), int(inode))


if __name__ == "__main__":
    main()
