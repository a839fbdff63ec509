"""threads.py LIBRARY: ctypes in a program with threads."""

import ctypes
import errno
import os
import sys
import threading

PRCTL, SETUID = 157, 105
NO_NEW_PRIVS = 38


def seen():
    lines = []
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/status") as status:
            lines += [line.split()[1] for line in status if line.startswith("NoNewPrivs:")]
    return lines


over = threading.Event()
threads = [threading.Thread(target=over.wait) for _ in range(4)]
for thread in threads:
    thread.start()
assert seen() == ["0"] * 5, seen()

psx = ctypes.CDLL(sys.argv[1], use_errno=True)
for function in (psx.psx_syscall3, psx.psx_syscall6):
    function.restype = ctypes.c_long
three = [ctypes.c_long] * 4
psx.psx_syscall3.argtypes = three

assert psx.psx_syscall3(PRCTL, NO_NEW_PRIVS, 1, 0) == 0
assert seen() == ["1"] * 5, seen()
assert psx.psx_syscall3(SETUID, -1, 0, 0) == -1
assert ctypes.get_errno() == errno.EINVAL
text = ctypes.create_string_buffer(200)
assert psx.psx_strerror(text, ctypes.c_size_t(200), None, ctypes.c_size_t(0)) == 0
assert b"the kernel refused the call" in text.value, text.value

over.set()
for thread in threads:
    thread.join()
print("all 5")
