"""The board: a live page over the nodes' public REST and event streams, and nothing else (README.md 1).

    settings  what a board is told: nodes, where to listen, the scenario's name
    kernels   what the page knows of the shipped kernels
    nodes     where browsers reach the nodes: as given, and as certified key documents say
    app       the page, its static files and /board.json, under a strict Content-Security-Policy
    static/   the page: plain modules, no build step, no request to any other host

The board holds no key and no state that matters. Whatever the page shows, a script can fetch from a node.
"""

from edgora.board.nodes import BoardNode, BoardNodes
from edgora.board.settings import BoardSettings, board_origins

__all__ = ["BoardNode", "BoardNodes", "BoardSettings", "board_origins"]
