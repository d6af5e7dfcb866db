"""The SDK of a UE: one task protocol (`flow`), two drivers. A device installs this, wire and crypto, nothing else.

    with Client("http://127.0.0.1:8100") as ue:
        order = order_for_kernel("sobel", Path("photo.png").read_bytes(), {})
        delivery = ue.compute(order)

Files: `steps` what a flow may ask, `flow` a task's life, `orders` what is asked for and its quote, `trust` what is
believed and why, `session` nodes and problems, `wallet` keys, `journal` what survives a crash, `aio` and `sync` the
drivers, `kernels` and `images` what the shipped kernels eat and give, `proofs` documents that are checked offline.
"""

from edgora.client.aio import AsyncClient
from edgora.client.flow import Delivery, Ticket
from edgora.client.journal import Journal, MemoryJournal
from edgora.client.orders import Order, Quote
from edgora.client.steps import Done, Tell
from edgora.client.sync import Client
from edgora.client.trust import Trust, Untrusted
from edgora.client.wallet import Wallet

__all__ = [
    "AsyncClient", "Client", "Delivery", "Done", "Journal", "MemoryJournal", "Order", "Quote", "Tell", "Ticket", "Trust",
    "Untrusted", "Wallet",
]  # fmt: skip
