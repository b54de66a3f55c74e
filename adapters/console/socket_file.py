"""The file of a Unix socket: made private, replaced when dead, removed when done."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST = 100
"""Bytes of a path that every system takes in a socket's address (Linux 107, macOS 103)."""

OPEN_FILES = Path("/proc/self/fd")


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for `path` that fits in a socket's address while the block runs: itself, or
    by way of its folder, held open. Raises OSError: ENOENT when there is no such folder,
    ENAMETOOLONG where the system has no such way."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    if not OPEN_FILES.is_dir():
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{OPEN_FILES}/{folder}/{path.name}"
    finally:
        os.close(folder)


def bind_private(path: Path) -> socket.socket:
    """A socket bound at `path` with mode 0600 from its first moment, not yet listening.
    What a dead process left there is replaced. Raises OSError: EADDRINUSE when a process
    listens there, EEXIST when it is no socket."""
    _make_room(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with short_name(path) as name, _mask(0o177):
            listener.bind(name)
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def _mask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def _make_room(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "not a socket 不是套接字", str(path))
    if _listened_to(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
    path.unlink()


def _listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_name(path) as name:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # so many wait that the queue is full
    return True


def identity(path: Path) -> tuple[int, int]:
    """Which file stands at `path` now. Raises OSError."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def remove(path: Path, known: tuple[int, int]) -> None:
    """Remove `path` unless another file has taken its place."""
    with suppress(OSError):
        if identity(path) == known:
            path.unlink()
