"""What goes wrong in a session, by kind: with the recorders, Redis, the network and the host, and with the gateway."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ibkr_depth_pipeline_tests.faults.random_faults import BEHAVIOURS, NORMAL, SYMBOLS, Dice
from ibkr_depth_pipeline_tests.sessions.model_redis import PORT
from ibkr_depth_pipeline_tests.sessions.world import GATEWAY_PORT, LISTINGS, Fault, Recorder, World

Acts = Iterator[tuple[float, Callable[[], object]]]
"""What to call, and when: seconds after the fault began."""


def acts_of(world: World, fault: Fault) -> Acts:
    """What a fault does. It ends by itself."""
    chance = random.Random(fault.choice)
    if fault.kind in BEHAVIOURS:
        yield from _gateway_acts(world, BEHAVIOURS[fault.kind](Dice(chance)))
        return
    yield from HOSTILE[fault.kind](world, chance)


def _gateway_acts(world: World, acts: Sequence[Any]) -> Acts:
    for act in acts:
        arguments = dict(act.arguments)
        if arguments.get("slots") == NORMAL:
            arguments["slots"] = world.plan.slots
        if arguments.get("symbol") in SYMBOLS:
            arguments["symbol"] = _recorded(world, arguments["symbol"])
        yield act.at, lambda name=act.name, arguments=arguments: getattr(world.gateway, name)(**arguments)


def _recorded(world: World, symbol: str) -> str:
    """A contract of the session in place of one that the burst has chosen."""
    name = world.symbols[SYMBOLS.index(symbol) % len(world.symbols)]
    return LISTINGS.get(name, (name,))[0]


def _it_has_arrived() -> None:
    """The session lasts until then."""


def _killed(world: World, chance: random.Random) -> Acts:
    late = chance.choice([0.0, 0.5, 5.0, 20.0])
    yield 0.0, lambda: world.active().kill(late)
    yield late, _it_has_arrived


def _killed_with_a_block_on_its_way(world: World, chance: random.Random) -> Acts:
    late = chance.choice([3.0, 6.0, 8.0, 20.0])
    victims: list[Recorder] = []

    def hold() -> None:
        victims.append(world.active())
        world.network.hold_sending(victims[0].owner, PORT, b"XADD")

    yield 0.0, hold
    yield 1.0, lambda: victims[0].kill(late)
    yield 1.0 + late, _it_has_arrived


def _handed_over(world: World, chance: random.Random) -> Acts:
    yield 0.0, lambda: world.active().stop()


def _standby_killed(world: World, chance: random.Random) -> Acts:
    def kill() -> None:
        for recorder in world.recorders:
            if recorder is not world.active():
                recorder.kill(0.0)

    yield 0.0, kill


def _both_killed(world: World, chance: random.Random) -> Acts:
    yield 0.0, lambda: [recorder.kill(chance.choice([0.0, 5.0])) for recorder in world.recorders]


def _parted(port: int) -> Callable[[World, random.Random], Acts]:
    def acts(world: World, chance: random.Random) -> Acts:
        victims: list[str] = []

        def part() -> None:
            victims.append(world.active().owner)
            world.network.part(victims[0], port)

        yield 0.0, part
        yield chance.choice([0.5, 2.0, 5.0, 12.0, 40.0]), lambda: world.network.join(victims[0], port)

    return acts


def _redis_cut(world: World, chance: random.Random) -> Acts:
    late = chance.choice([0.0, 0.5, 3.0, 10.0])
    victims: list[str] = []

    def hold() -> None:
        victims.append(world.active().owner)
        world.network.hold_sending(victims[0], PORT, b"XADD")

    yield 0.0, hold
    yield 1.0, lambda: world.network.cut(victims[0], PORT, late)
    yield 1.0 + late, _it_has_arrived


def _redis_stalls(world: World, chance: random.Random) -> Acts:
    yield 0.0, world.redis.stall
    yield chance.choice([0.2, 1.0, 3.0, 8.0, 20.0]), world.redis.resume


def _redis_full(world: World, chance: random.Random) -> Acts:
    def fill(is_full: bool) -> None:
        world.redis.is_full = is_full

    yield 0.0, lambda: fill(True)
    yield chance.choice([0.5, 3.0, 15.0]), lambda: fill(False)


def _slots_taken(world: World, chance: random.Random) -> Acts:
    """For long enough that the recorder tries a larger batch meanwhile."""
    taken = chance.randint(1, max(1, world.plan.slots - 1))
    yield 0.0, lambda: world.gateway.occupy_slots(taken)
    yield chance.choice([15.0, 25.0]), lambda: world.gateway.occupy_slots(0)


def _line_dies(world: World, chance: random.Random) -> Acts:
    """While others go on."""
    yield 0.0, lambda: world.gateway.die(_recorded(world, chance.choice(SYMBOLS)))


def _line_dies_young(world: World, chance: random.Random) -> Acts:
    """Behind its opening image, in a recorder that has just begun: it knows too little for a proof."""
    symbol, due = _recorded(world, chance.choice(SYMBOLS)), [False]

    def observe(entry: Any) -> None:
        if due[0] and entry.kind == "rows" and entry.name == symbol:
            due[0] = False
            asyncio.get_running_loop().call_later(0.05, world.gateway.die, symbol)

    def begin() -> None:
        due[0] = True

    world.gateway.journal.listen(observe)
    yield 0.0, lambda: world.active().kill(0.0)
    yield 0.5, begin  # nothing of the killed one's comes any more
    yield 8.0, _it_has_arrived


def _suspended(world: World, chance: random.Random) -> Acts:
    def jump() -> None:
        world.clock.now += chance.choice([1.0, 5.0, 60.0])

    yield 0.0, jump


HOSTILE: Mapping[str, Callable[[World, random.Random], Acts]] = {
    "killed": _killed,
    "killed with a block on its way": _killed_with_a_block_on_its_way,
    "handed over": _handed_over,
    "standby killed": _standby_killed,
    "both killed": _both_killed,
    "parted from Redis": _parted(PORT),
    "parted from the gateway": _parted(GATEWAY_PORT),
    "connection to Redis cut": _redis_cut,
    "Redis stalls": _redis_stalls,
    "Redis full": _redis_full,
    "slots taken": _slots_taken,
    "line dies": _line_dies,
    "line dies young": _line_dies_young,
    "host suspended": _suspended,
}
"""What happens beside what the gateway does (faults/random_faults.py: BEHAVIOURS)."""

KINDS = (*HOSTILE, *BEHAVIOURS)
