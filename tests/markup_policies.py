"""Policies whose words are markup: names and an error as an attacker would choose them. Scenarios say `module:object`."""

import sys
from typing import Any

from live_policies import Best

HOSTILE = "<script>ran=1</script>"
FAILING = "<img src=x onerror=ran=1>"
NAME, FAILS = f"markup_policies:{HOSTILE}", f"markup_policies:{FAILING}"


class Fails:
    def propose(self, instance: Any, budget_s: float) -> object:
        raise ZeroDivisionError(FAILING)


setattr(sys.modules[__name__], HOSTILE, Best)
setattr(sys.modules[__name__], FAILING, Fails)
