"""What a gateway at random does wrong, chosen by a seed alone: bursts of faults, each of which ends by itself.

A fault is a method of SimulatedGateway; what lasts until it is taken back is taken back within the burst.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline.simulation.distortions import BAD_FRAMES, MALFORMED_ROWS, UNREADABLE_ROWS

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN", "NVDA", "META", "TSLA")
CLIENT_ID = 777
BURST_SECS = 4.0
"""Faults of a burst begin within this time."""


@dataclass(frozen=True)
class Act:
    """One call of the gateway, `at` seconds after the burst began."""

    at: float
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.at:5.2f} {self.name}({arguments})"


@dataclass(frozen=True)
class Dice:
    """The choices of one burst: a time within it, a symbol, a duration."""

    chance: random.Random

    def act(self, name: str, at: float, **arguments: Any) -> Act:
        return Act(round(at, 2), name, arguments)

    @property
    def at(self) -> float:
        return self.chance.uniform(0, BURST_SECS)

    @property
    def symbol(self) -> str:
        return self.chance.choice(SYMBOLS)

    @property
    def secs(self) -> float:
        return round(self.chance.uniform(0.2, 4.0), 2)

    def alone(self, name: str, **arguments: Any) -> list[Act]:
        return [self.act(name, self.at, **arguments)]

    def until(self, name: str, arguments: dict[str, Any], end: str, end_arguments: dict[str, Any]) -> list[Act]:
        at = self.at
        return [self.act(name, at, **arguments), self.act(end, at + self.secs, **end_arguments)]

    def before_a_drop(self, name: str, **arguments: Any) -> list[Act]:
        """What shows at a new connection only."""
        at = self.at
        return [self.act(name, at, **arguments), self.act("drop_connections", at + 0.05, reset=True)]

    # ---- kinds that need more than a line

    def connectivity(self) -> list[Act]:
        at = self.at
        back = {"data_lost": self.chance.random() < 0.5, "rows_follow": self.chance.random() < 0.5}
        return [self.act("connectivity_lost", at), self.act("connectivity_restored", at + self.secs, **back)]

    def outage(self) -> list[Act]:
        at, help_ = self.at, self.chance.random() < 0.6
        acts = [self.act("connectivity_lost", at, dead_lines=True, requests_help=help_)]
        if self.chance.random() < 0.4:
            acts.append(self.act("send_error", at + self.secs, code=2104))
        return acts

    def farm(self) -> list[Act]:
        at, code = self.at, self.chance.choice([2103, 2103, 2108, 2110, 10197])
        acts = [self.act("send_error", at, code=code)]
        if code == 2103:
            acts.append(self.act("send_error", at + self.secs, code=2104))
        if code != 2110 and self.chance.random() < 0.5:  # lines that die of it; 2110 alone is no news of lines
            acts.append(self.act("silence", at + 0.05))
        return acts

    def few_slots(self) -> list[Act]:
        at, slots = self.at, self.chance.choice([0, 1, 2])
        acts = [self.act("set_slots", at, slots=slots), self.act("set_slots", at + 2 * self.secs, slots=NORMAL)]
        if self.chance.random() < 0.5:
            acts.insert(1, self.act("drop_connections", at + 0.05))
        return acts

    def occupied(self) -> list[Act]:
        return self.alone("occupy_slots", slots=self.chance.choice([1, 2, 3]), seconds=2 * self.secs)

    def late_slots(self) -> list[Act]:
        late = round(self.chance.uniform(0.05, 1.8), 2)
        return self.until("set_slot_free_delay", {"seconds": late}, "set_slot_free_delay", {"seconds": 0.0})

    def unready(self) -> list[Act]:
        how = self.chance.choice(["no_exchanges", "unknown_contracts", "not_subscribed", "silent"])
        at = self.at
        acts = [self.act("become_unready", at, how=how), self.act("become_ready", at + self.secs)]
        if self.chance.random() < 0.7 or how == "silent":
            acts.insert(1, self.act("drop_connections", at + 0.05))
        return acts

    def refused(self) -> list[Act]:
        code = self.chance.choice([200, 354, 420, 478, 10089, 10090, 10091, 10092, 10168, 10186, 321])
        symbol, at = self.symbol, self.at
        acts = [self.act("refuse", at, symbol=symbol, code=code), self.act("halt", at + 0.05, symbol=symbol)]
        return [*acts, self.act("allow", at + self.secs, symbol=symbol)]

    def advised(self) -> list[Act]:
        return self.alone(
            "advise", symbol=self.symbol, code=self.chance.choice([10089, 10090, 10091, 10167, 2152, 2119])
        )

    def slow_greeting(self) -> list[Act]:
        at = self.at
        acts = [self.act("set_greeting_delay", at, seconds=self.secs), self.act("drop_connections", at + 0.05)]
        return [*acts, self.act("set_greeting_delay", at + 3 * self.secs, seconds=0.0)]

    def paced(self) -> list[Act]:
        at = self.at
        limit = {
            "messages_per_second": self.chance.choice([5, 10, 20]),
            "pacing": self.chance.choice(["drop", "disconnect"]),
        }
        acts = [self.act("limit_messages", at, **limit), self.act("drop_connections", at + 0.05)]
        return [*acts, self.act("limit_messages", at + 2 * self.secs, messages_per_second=None)]

    def details(self) -> list[Act]:
        if self.chance.random() < 0.5:
            return self.before_a_drop("ignore_details", symbol="*", times=self.chance.choice([1, 2]))
        at = self.at
        acts = [self.act("set_details_delay", at, seconds=self.secs), self.act("drop_connections", at + 0.05)]
        return [*acts, self.act("set_details_delay", at + 2 * self.secs, seconds=0.0)]

    def out_of_step(self) -> list[Act]:
        name = self.chance.choice(["double_side", "extra_delete", "lose_row", "cross", "unsort", "freeze_book"])
        arguments: dict[str, Any] = {"symbol": self.symbol, "times": self.chance.choice([1, 1, 2])}
        if name in ("double_side", "extra_delete"):
            arguments["side"] = self.chance.choice(["bid", "ask"])
        if name == "cross":
            arguments["seconds"] = 3 * self.secs
        return self.alone(name, **arguments)

    def past_end(self) -> list[Act]:
        return self.alone("updates_past_end", symbol=self.symbol, count=self.chance.choice([1, 3, 50]), side="ask")

    def unreadable(self) -> list[Act]:
        how = self.chance.choice(list(UNREADABLE_ROWS))
        operation = self.chance.choice(["insert", "update", "delete"])
        return self.alone("unreadable_row", symbol=self.symbol, operation=operation, how=how)

    def dead_line(self) -> list[Act]:
        name = self.chance.choice(["die", "die", "die_on_subscribe"])
        return self.alone(name, symbol=self.symbol, times=self.chance.choice([1, 1, 2]))


FRAMES = [kind for kind in BAD_FRAMES if kind != "unterminated"]  # which may be read as a row
NOTICES = [10197, 2103, 2104, 2119, 322]

NORMAL = -1
"""Stands for the run's own number of slots."""

BEHAVIOURS: Mapping[str, Callable[[Dice], list[Act]]] = {
    "reset": lambda dice: dice.alone("drop_connections", reset=True),
    "clean close": lambda dice: dice.alone("drop_connections", reset=False),
    "half a message": lambda dice: dice.alone("cut_message", reset=dice.chance.random() < 0.5),
    "refused connections": lambda dice: dice.before_a_drop("refuse_connections", seconds=dice.secs),
    "mute connections": lambda dice: dice.before_a_drop("mute_new_connections", seconds=dice.secs),
    "stall": lambda dice: dice.alone("stall", seconds=dice.secs),
    "single bytes": lambda dice: dice.alone("dribble", seconds=1.0),
    "slow greeting": Dice.slow_greeting,
    "taken client id": lambda dice: dice.before_a_drop("hold_client_id", client_id=CLIENT_ID, seconds=dice.secs),
    "hung client id": lambda dice: dice.before_a_drop("hang_client_id", client_id=CLIENT_ID, seconds=dice.secs),
    "unready": Dice.unready,
    "connectivity": Dice.connectivity,
    "outage": Dice.outage,
    "farm": Dice.farm,
    "port reset": lambda dice: dice.alone("send_error", code=1300),
    "reset of a book": lambda dice: dice.alone("reset_book", symbol=dice.symbol),
    "halt": lambda dice: dice.alone("halt", symbol=dice.symbol),
    "dead line": Dice.dead_line,
    "paused line": lambda dice: dice.alone("pause_rows", symbol=dice.symbol, seconds=dice.secs),
    "quiet market": lambda dice: dice.alone("pause_rows", symbol=None, seconds=2 * dice.secs),
    "out of step": Dice.out_of_step,
    "updates past the end": Dice.past_end,
    "unreadable row": Dice.unreadable,
    "malformed rows": lambda dice: dice.alone("malformed_rows", kinds=tuple(MALFORMED_ROWS), symbol=dice.symbol),
    "bad frame": lambda dice: dice.alone("bad_frame", kind=dice.chance.choice(FRAMES)),
    "burst": lambda dice: dice.alone("burst", symbol=dice.symbol, rows=2000),
    "few slots": Dice.few_slots,
    "occupied slots": Dice.occupied,
    "late slots": Dice.late_slots,
    "refused symbol": Dice.refused,
    "advisory": Dice.advised,
    "repeated error": lambda dice: dice.alone("repeat_error", code=dice.chance.choice(NOTICES), times=240),
    "permissions": lambda dice: dice.alone("notify_permissions"),
    "pacing": Dice.paced,
    "busy account": lambda dice: dice.alone("occupy_messages", messages_per_second=45, seconds=dice.secs),
    "details": Dice.details,
    "clock": lambda dice: dice.alone("set_clock_offset", seconds=dice.chance.choice([-3600.0, -2.0, 0.0, 5.0])),
}  # fmt: skip


@dataclass(frozen=True)
class Burst:
    """Some behaviours at once, and their acts in order."""

    number: int
    behaviours: tuple[str, ...]
    acts: tuple[Act, ...]

    def __str__(self) -> str:
        return f"burst {self.number}: {', '.join(self.behaviours)}\n" + "\n".join(f"    {act}" for act in self.acts)


def bursts_of(seed: int) -> Iterator[Burst]:
    """All bursts of a seed, without end, by it alone: each behaviour has its turn before any has its next."""
    chance, numbers = random.Random(f"{seed} bursts"), itertools.count()
    while True:
        left = chance.sample(list(BEHAVIOURS), len(BEHAVIOURS))
        while left:
            size = chance.choice([1, 1, 2, 3])
            names, left = left[:size], left[size:]
            acts = [act for name in names for act in BEHAVIOURS[name](Dice(chance))]
            yield Burst(next(numbers), tuple(names), tuple(sorted(acts, key=lambda act: act.at)))


def gateway_of(seed: int, slots: int, rows_per_second: float) -> GatewayOptions:
    """How the gateway is by nature."""
    chance = random.Random(f"{seed} gateway")
    return GatewayOptions(
        seed=seed,
        slots=slots,
        rows_per_second=rows_per_second,
        latency=chance.choice([0.0, 0.0, 0.01]),
        first_row_delay=chance.choice([0.0, 0.05, 0.3]),
        slot_free_delay=0.0,
        rows_after_cancel=chance.choice([0.0, 0.2]),
        early_cancel=chance.choice([EarlyCancel.HONOURED, EarlyCancel.HONOURED, EarlyCancel.LOST_UNTIL_FIRST_ROW]),
        slots_held_after_drop=chance.choice([0.0, 1.0, 3.0]),
        client_id_held_after_drop=chance.choice([0.0, 0.5]),
    )


def never_chosen(bursts: Sequence[Burst]) -> set[str]:
    """Behaviours that a run did not come to."""
    return set(BEHAVIOURS) - {name for burst in bursts for name in burst.behaviours}
