"""Threads of Python, for embedded_python.rs: one that computes, one that sleeps, and one that collects garbage."""

import gc
import os
import threading

over = threading.Event()
able: list[bool] = []
count = 0


def collections() -> int:
    return count


def attempt() -> None:
    """Records whether this thread could become root, or read a file that only root may read."""
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        able.append(os.access("/etc/shadow", os.R_OK))
    else:
        able.append(True)


def compute() -> None:
    while not over.is_set():
        ring: list[object] = []
        ring.append(ring)
    attempt()


def sleep() -> None:
    over.wait()
    attempt()


def collect() -> None:
    global count
    while not over.is_set():
        gc.collect()
        count += 1
    attempt()


threads = [threading.Thread(target=body, daemon=True) for body in (compute, sleep, collect)]


def start() -> int:
    for thread in threads:
        thread.start()
    return len(threads)


def attempts() -> int:
    """Makes each thread try, and returns how many succeeded. The threads end."""
    over.set()
    for thread in threads:
        thread.join()
    return able.count(True)
