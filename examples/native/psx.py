"""libpsx.so.2 for Python: one system call, performed by every thread of the process at once.

It needs nothing but ctypes. A call raises OSError, and then it has changed nothing in any thread::

    import psx

    psx.setgroups([])
    psx.setresgid(65534, 65534, 65534)
    psx.setresuid(65534, 65534, 65534)
    psx.set_no_new_privs()

ctypes lets other threads run Python during the call. libpsx holds them until all have performed it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

__all__ = ["prctl", "set_no_new_privs", "setgroups", "setresgid", "setresuid", "syscall"]

_library = ctypes.CDLL("libpsx.so.2", use_errno=True)
_library.psx_syscall6.argtypes = [ctypes.c_long] * 7
_library.psx_syscall6.restype = ctypes.c_long

# The numbers of x86-64, the processor that libpsx is for.
_SETRESUID, _SETRESGID, _SETGROUPS, _PRCTL = 117, 119, 116, 157
_PR_SET_NO_NEW_PRIVS = 38


def syscall(number: int, *arguments: int) -> int:
    """Performs a system call in every thread. The arguments are numbers, or addresses that stay valid meanwhile."""
    if len(arguments) > 6:
        raise TypeError(f"a system call has at most 6 arguments, not {len(arguments)}")
    padded = arguments + (0,) * (6 - len(arguments))
    result: int = _library.psx_syscall6(number, *padded)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def setresuid(real: int, effective: int, saved: int) -> None:
    """setresuid(2). -1 leaves an id as it is."""
    syscall(_SETRESUID, real, effective, saved)


def setresgid(real: int, effective: int, saved: int) -> None:
    """setresgid(2). -1 leaves an id as it is."""
    syscall(_SETRESGID, real, effective, saved)


def setgroups(groups: Iterable[int]) -> None:
    """setgroups(2): the supplementary groups."""
    numbers = list(groups)
    array = (ctypes.c_uint32 * len(numbers))(*numbers)
    syscall(_SETGROUPS, len(numbers), ctypes.addressof(array))


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    return syscall(_PRCTL, option, *arguments)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS(2const): execve(2) gives no privilege any more."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
