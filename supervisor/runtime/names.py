"""Names for containers nobody named: a trait and a baked good."""

from __future__ import annotations

import secrets
from collections.abc import Collection

TRAITS = (
    "airy brisk buttery calm chewy crisp crusty dainty dense fluffy fragrant fresh golden hearty honeyed humble jolly "
    "light malty mellow moist nutty patient plain quiet rich risen rosy rustic salted seeded silky simple soft sour "
    "spiced sticky sturdy sunny sweet tangy tender toasted twisted velvety warm whole zesty"
).split()
GOODS = (
    "babka bagel baguette bap barmbrack batard biscuit boule bretzel brioche bun bundt cake challah ciabatta cobbler "
    "cookie cracker croissant crumpet cupcake eclair farl flapjack focaccia fougasse galette knackebrod lavash loaf "
    "macaron madeleine manchet matzo miche muffin naan pancake panettone pie pita popover pretzel pudding quiche roll "
    "rusk scone shortbread sourdough stollen strudel tart torte tortilla waffle wafer zwieback"
).split()
PLAIN_TRIES = 20


def random_name(taken: Collection[str]) -> str:
    """A name that is not in ``taken``."""
    for _ in range(PLAIN_TRIES):
        name = f"{secrets.choice(TRAITS)}_{secrets.choice(GOODS)}"
        if name not in taken:
            return name
    return f"{secrets.choice(TRAITS)}_{secrets.choice(GOODS)}_{secrets.token_hex(4)}"
