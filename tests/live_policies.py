"""Policies as a user would write them; scenarios name them as `live_policies:Best`."""

from itertools import product
from typing import Any

import numpy as np


class Best:
    """Tries every plan of a small round."""

    def propose(self, instance: Any, budget_s: float) -> dict[str, Any]:
        table = instance.table
        plans = (np.array(choice) for choice in product(range(-1, table.n), repeat=table.m))
        best, worth = table.rejected(), 0.0
        for plan in plans:
            if table.allows(plan):
                value = sum(table.value[i, j] for j, i in enumerate(plan) if i >= 0)
                if value > worth:
                    best, worth = plan, value
        return {"plan": best, "bound": worth}


class Crashes:
    """Has no answer."""

    def propose(self, instance: Any, budget_s: float) -> object:
        raise ZeroDivisionError("on purpose")
