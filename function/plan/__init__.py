"""What should exist, which conditions hold, and why something is not there yet: the table of contents of the product.

Pure: no clock, no random numbers, no network, no protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from function import delivery
from function.plan import memory, provider
from function.state import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from function.state import Inputs

_COMPOSERS: Mapping[str, Callable[[Inputs], Plan]] = {
    "XMemory": memory.compose,
    "XMemoryProvider": provider.compose,
}
KINDS = tuple(_COMPOSERS)


def compose(inputs: Inputs) -> Plan:
    """Plan one composite."""
    composer = _COMPOSERS.get(inputs.kind)
    if composer is None:
        known = " and ".join(KINDS)
        return Plan(fatal=f'cannot compose kind "{inputs.kind}": this function serves {known}')
    return delivery.wrap(composer(delivery.unwrap(inputs)), inputs)
