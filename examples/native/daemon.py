"""A daemon in Python that drops privileges by libpsx.so.2, through the module psx beside it.

It shows that a module of one file is enough. (os.setuid changes all threads too, by glibc; no_new_privs, capabilities,
filters have no such function.) Threads echo datagrams. Run it as root:

    capi/install --prefix=/usr/local
    sudo python3 native/daemon.py 7

It ends with its input.
"""

import os
import socket
import sys
import threading

import psx

NOBODY = 65534


def echo(sock: socket.socket) -> None:
    while True:
        data, address = sock.recvfrom(512)
        sock.sendto(data, address)


def main() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", int(sys.argv[1]) if len(sys.argv) > 1 else 7))
    for _ in range(4):
        threading.Thread(target=echo, args=[sock], daemon=True).start()
    psx.setgroups([])
    psx.setresgid(NOBODY, NOBODY, NOBODY)
    psx.setresuid(NOBODY, NOBODY, NOBODY)
    psx.set_no_new_privs()
    print("dropped", flush=True)
    sys.stdin.read()
    # Without waiting for the threads.
    os._exit(0)


main()
