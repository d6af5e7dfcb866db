"""Ports for servers that start a little later: each is given once, below the range of outgoing connections."""

import random
import socket
from pathlib import Path

from edgora.adapters.loopback import free_port


def test_a_port_is_given_once_and_can_be_listened_on() -> None:
    ports = []
    for _ in range(300):
        random.seed(7)  # what a test or a scenario seeds has no say
        ports.append(free_port())
    assert len(set(ports)) == len(ports)
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[-1]))
        server.listen()


def test_no_outgoing_connection_takes_it() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1_024 < free_port() < lowest for _ in range(50))
