"""Ports on 127.0.0.1 for servers that start a little later."""

import random
import socket
import threading

__all__ = ["free_port"]

_LOW, _HIGH = 20_000, 32_767
"""Below the range that Linux and the IANA give to outgoing connections: a port that is free now is not taken by the next
connection that anybody opens."""

_draw = random.SystemRandom()  # processes that start together, or with one seed, rarely choose the same
_given: set[int] = set()  # by this process: nobody may listen there yet, but somebody is about to
_lock = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on now and that this process was not given before.

    Raises OSError if a thousand tries found none.
    """
    with _lock:
        for _ in range(1_000):
            port = _draw.randint(_LOW, _HIGH)
            if port in _given:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port
    raise OSError(f"no free port between {_LOW} and {_HIGH} on 127.0.0.1")
