"""Reads over what people wrote, and puts it into the book with the number of its words."""

import os
import signal
import socket
import sys

import redis

store = redis.Redis(os.environ.get("STORE", "localhost"), decode_responses=True)


def main():
    """Read until told to stop; with ``--count``, say how much is in the book."""
    if "--count" in sys.argv:
        print(store.llen("read"))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    name = socket.gethostname()
    print(f"worker {name} reads")
    while True:
        taken = store.blpop("written", timeout=1)
        if taken:
            text = taken[1]
            store.lpush("read", f"{text} ({len(text.split())} words, read by {name})")
            print(f"read {text!r}")


if __name__ == "__main__":
    main()
