"""Replays one session: `python -m ibkr_depth_pipeline_tests.sessions "Plan(seed=0, ...)"`, as a failed test prints it.

Prints what was logged, then the states, the digest of all that was sent and stored, and what was wrong. Exit code 1 if
something was.
"""

from __future__ import annotations

import logging
import sys

from ibkr_depth_pipeline_tests.sessions.session import play
from ibkr_depth_pipeline_tests.sessions.world import Fault, Plan


def main(text: str) -> int:
    """0 if nothing was wrong."""
    logging.disable(logging.CRITICAL)  # ib_insync's, of connections that are meant to fail
    plan = eval(text, {"__builtins__": {}, "Plan": Plan, "Fault": Fault})  # the developer's own words
    seen = play(plan)
    for line in seen.logged:
        rest = {name: value for name, value in line.items() if name not in ("event", "log_level")}
        print(line["event"], " ".join(f"{name}={value}" for name, value in rest.items()))
    print(f"\n{seen.secs:.1f} s, {seen.snapshots} snapshots, states {dict(seen.states)}")
    print(f"digest {seen.digest}")
    print("\n".join(seen.problems) or "nothing was wrong")
    return 1 if seen.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
