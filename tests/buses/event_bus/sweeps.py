"""Tables of calls to interrupt, for both buses."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.kit.interrupts import Ending
from tests.kit.proofs import Proof
from tests.kit.twins import Twin

Prepare = Callable[[ModuleType], Any]
Call = Callable[[Any], object]
Check = Callable[[Any, Ending], None]


@dataclass(kw_only=True)
class Sweep(Proof):
    """A call that is interrupted, on what it is made, and what must hold afterwards."""

    prepare: Prepare
    call: Call


class Sweeps(list[Proof]):
    """A file's sweeps, each check below its guarantee, its call and its twins."""

    def prove(
        self, guarantee: str, prepare: Prepare, call: Call, *twins: Twin
    ) -> Callable[[Check], Check]:
        """The check is one of them."""

        def add(check: Check) -> Check:
            self.append(Sweep(guarantee, check, list(twins), prepare=prepare, call=call))
            return check

        return add
