#!/usr/bin/env python3
"""stop-threads.py TID…: stops these threads, as a fault of the kernel or a debugger would, until their process ends."""

import ctypes
import os
import sys

SEIZE, INTERRUPT, WAIT_ALL = 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    threads = {int(text) for text in sys.argv[1:]}
    for thread in threads:
        for request in (SEIZE, INTERRUPT):
            if libc.ptrace(request, thread, None, None) < 0:
                print(f"ptrace: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
                return 1
    # Their ends have to be taken note of, or the process would not end either.
    while threads:
        thread, status = os.waitpid(-1, WAIT_ALL)
        if os.WIFSTOPPED(status):
            print(thread, flush=True)
        else:
            threads.discard(thread)
    return 0


if __name__ == "__main__":
    sys.exit(main())
