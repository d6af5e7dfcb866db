"""Edgora: edge servers trade compute and nobody has to be trusted.

The four source folders (services, allocator, clients, contracts) are portions of this one package; `extend_path` joins
them in an editable install, a wheel holds them merged. Importing `edgora` alone loads nothing heavy: the client is
looked up on first use.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

__path__ = extend_path(__path__, __name__)
__all__ = ["AsyncClient", "Client"]

if TYPE_CHECKING:
    from edgora.client import AsyncClient, Client


def __getattr__(name: str) -> object:
    if name in __all__:
        from edgora import client

        return getattr(client, name)
    raise AttributeError(f"module 'edgora' has no attribute {name!r}")
