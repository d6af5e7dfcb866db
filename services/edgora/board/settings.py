"""What a board is told when it starts."""

import re
from dataclasses import dataclass

from edgora.wire.errors import Refused

__all__ = ["BoardSettings", "board_origins", "origin_of"]

_ORIGIN = re.compile(r"(https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?)/?")


def origin_of(url: str) -> str:
    """scheme://host:port of a base URL. Raises Refused for anything with more in it: it goes into a security header."""
    found = _ORIGIN.fullmatch(url)
    if found is None:
        raise Refused(f"{url!r} is no base URL of a node", field="node", fix="give it as http://127.0.0.1:8100")
    return found[1]


def board_origins(host: str, port: int) -> tuple[str, ...]:
    """Origins that a page served there has: what nodes are told to answer (node.settings, cors_origins)."""
    names = ("127.0.0.1", "localhost") if host in {"127.0.0.1", "localhost", "0.0.0.0", "::"} else (host,)
    return tuple(f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}" for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSettings:
    """Where the board listens and whom it asks."""

    nodes: tuple[str, ...] = ()
    """Base URLs of nodes, in order of their ids; further ones are learned from them."""
    inside: bool = False
    """The URLs are those of the deployment's own network: browsers are told the public ones of the key documents only."""
    host: str = "127.0.0.1"
    port: int = 8080
    scenario: str = ""
    """Name shown on the page."""
    faults: str = ""
    """Base URL of the sidecar that carries faults out; empty: the page has no fault panel."""

    def __post_init__(self) -> None:
        if not self.nodes:
            raise Refused("the board needs a node to ask", field="node", fix="give --node http://127.0.0.1:8100")
        for url in self.nodes:
            origin_of(url)
        if not 0 <= self.port <= 65_535:
            raise Refused(f"{self.port} is no port", field="listen", fix="give --listen 127.0.0.1:8080")
