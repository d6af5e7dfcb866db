"""Damaged copies of a JSON document: structure, values and bytes. Whoever reads them must refuse, never raise."""

import json
import random
from typing import Any


def mutations(count: int, seed: int, document: dict[str, Any]) -> list[bytes]:
    """Damaged copies of a document: structure, values and bytes."""
    rng = random.Random(seed)
    odd = [None, True, -1, 0, 2**70, 10**400, 1e308, -0.0, "x", "NaN", [], {}, [[1]], [None], {"n": 1}, 0.5, "\udc80"]
    made = []
    for _ in range(count):
        copy = json.loads(json.dumps(document))
        for _ in range(rng.choice([1, 1, 1, 3])):
            key = rng.choice(list(copy) or ["x"])
            kind = rng.randrange(7)
            if kind == 0:
                copy.pop(key, None)
            elif kind == 1:
                copy[key] = rng.choice(odd)
            elif kind == 2 and isinstance(copy.get(key), list) and copy[key]:
                copy[key][rng.randrange(len(copy[key]))] = rng.choice(odd)
            elif kind == 3 and isinstance(copy.get(key), list):
                copy[key] = copy[key][: rng.randrange(len(copy[key]) + 1)] * rng.choice([1, 2])
            elif kind == 4:
                copy[f"{key}_"] = rng.choice(odd)
            elif kind == 5 and isinstance(copy.get(key), dict) and copy[key]:
                copy[key][rng.choice(list(copy[key]))] = rng.choice(odd)
        text = json.dumps(copy)
        if rng.random() < 0.2:
            text = text.replace("1", rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "0x1"]), 1)
        data = bytearray(text.encode())
        if rng.random() < 0.3:
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        made.append(bytes(data))
    return made
