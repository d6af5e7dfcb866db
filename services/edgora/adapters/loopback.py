"""Ports on 127.0.0.1 for servers that start a little later."""

import random
import socket

__all__ = ["free_port"]

_LOW, _HIGH = 20_000, 32_767
"""Below the range that Linux and the IANA give to outgoing connections: a port that is free now is not taken by the next
connection that anybody opens."""


def free_port() -> int:
    """A port that nobody listens on now. Raises OSError if a thousand tries found none."""
    for _ in range(1_000):
        port = random.randint(_LOW, _HIGH)  # noqa: S311 - so that processes that start together rarely choose the same
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_LOW} and {_HIGH} on 127.0.0.1")
