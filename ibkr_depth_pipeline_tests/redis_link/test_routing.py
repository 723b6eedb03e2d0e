"""The routing of commands in a cluster, without I/O: keys are letters, nodes are names, replies are given by a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ibkr_depth_pipeline.redis_link.routing import (
    RETRIES,
    FailedNodes,
    Redirect,
    Refresh,
    Share,
    route,
)

MOVED_TO_TWO = Redirect("two", 1, moved=True)
ASK_TWO = Redirect("two", 1, moved=False)
DOWN = ConnectionError("one does not answer")


class Cluster:
    """Owners of keys, and each node's replies by key, which are used up one by one; without one it says `ok KEY`."""

    def __init__(self, owners: dict[str, str], replies: dict[tuple[str, str], list[Any]] | None = None) -> None:
        self.owners = owners
        self.after_refresh = owners
        self.replies = replies or {}
        self.sent: list[tuple[str, str, bool]] = []
        self.refreshes = 0

    def route(self, keys: Sequence[str]) -> list[Any]:
        def owner_of(key: str) -> str | Exception:
            return self.owners.get(key) or KeyError(key)

        steps = route(keys, owner_of=owner_of, node_at=self.node_at, redirect_of=self.redirect_of)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Refresh):
                    self.refreshes += 1
                    self.owners = self.after_refresh
                    step = steps.send(())
                else:
                    step = steps.send([self.answer(share, keys) for share in step])
        except StopIteration as done:
            replies: list[Any] = done.value
            return replies

    def answer(self, share: Share[str], keys: Sequence[str]) -> list[Any]:
        of_node: list[Any] = []
        for place in share.places:
            key = keys[place]
            self.sent.append((share.node, key, share.asking))
            left = self.replies.get((share.node, key))
            of_node.append(left.pop(0) if left else f"ok {key}")
        return of_node

    node_at: Callable[[str, int], str | None] = staticmethod(
        lambda host, port: host if host in ("one", "two") else None
    )
    redirect_of: Callable[[Any], Redirect | None] = staticmethod(
        lambda reply: reply if isinstance(reply, Redirect) else None
    )


def test_each_command_goes_once_to_the_owner_of_its_key_and_replies_keep_their_order() -> None:
    cluster = Cluster({"a": "one", "b": "two", "c": "one"})
    assert cluster.route(["c", "b", "a"]) == ["ok c", "ok b", "ok a"]
    assert cluster.sent == [("one", "c", False), ("one", "a", False), ("two", "b", False)]
    assert cluster.refreshes == 0


def test_no_command_is_sent_for_no_key() -> None:
    assert Cluster({}).route([]) == []


def test_key_without_an_owner_gets_the_reason_and_costs_no_other() -> None:
    cluster = Cluster({"a": "one"})
    lost, fine = cluster.route(["z", "a"])
    assert isinstance(lost, KeyError)
    assert fine == "ok a"


def test_moved_command_alone_is_sent_again_after_one_refresh() -> None:
    cluster = Cluster({"a": "one", "b": "one"}, {("one", "a"): [MOVED_TO_TWO]})
    cluster.after_refresh = {"a": "two", "b": "one"}
    assert cluster.route(["a", "b"]) == ["ok a", "ok b"]
    assert cluster.sent == [("one", "a", False), ("one", "b", False), ("two", "a", False)]
    assert cluster.refreshes == 1


def test_second_moved_goes_to_the_node_that_it_names() -> None:
    cluster = Cluster({"a": "one"}, {("one", "a"): [MOVED_TO_TWO, MOVED_TO_TWO]})
    assert cluster.route(["a"]) == ["ok a"]
    assert cluster.sent == [("one", "a", False), ("one", "a", False), ("two", "a", True)]
    assert cluster.refreshes == 1


def test_asked_commands_go_to_the_importing_node_in_one_share_behind_asking_without_a_refresh() -> None:
    cluster = Cluster({"a": "one", "b": "one"}, {("one", "a"): [ASK_TWO], ("one", "b"): [ASK_TWO]})
    assert cluster.route(["a", "b"]) == ["ok a", "ok b"]
    assert cluster.sent[2:] == [("two", "a", True), ("two", "b", True)]
    assert cluster.refreshes == 0


def test_redirect_to_an_unknown_node_is_the_reply() -> None:
    nowhere = Redirect("three", 1, moved=False)
    assert Cluster({"a": "one"}, {("one", "a"): [nowhere]}).route(["a"]) == [nowhere]


def test_command_redirected_by_the_importing_node_is_not_sent_a_fourth_time() -> None:
    cluster = Cluster({"a": "one"}, {("one", "a"): [MOVED_TO_TWO, MOVED_TO_TWO], ("two", "a"): [ASK_TWO]})
    assert cluster.route(["a"]) == [ASK_TWO]
    assert len(cluster.sent) == 3


def test_command_whose_outcome_is_unknown_is_not_repeated() -> None:
    cluster = Cluster({"a": "one", "b": "two"}, {("one", "a"): [DOWN]})
    assert cluster.route(["a", "b"]) == [DOWN, "ok b"]
    assert len(cluster.sent) == 2
    assert cluster.refreshes == 0


def test_moved_command_whose_new_owner_is_unknown_gets_the_reason() -> None:
    cluster = Cluster({"a": "one"}, {("one", "a"): [MOVED_TO_TWO]})
    cluster.after_refresh = {}
    [reply] = cluster.route(["a"])
    assert isinstance(reply, KeyError)


def test_failed_node_is_tried_at_once_then_with_doubling_pauses_until_it_answers() -> None:
    failed = FailedNodes()
    now = 100.0
    assert not failed.rests("one", now)
    assert failed.failed("one", now) == now
    assert "one" in failed
    assert not failed.rests("one", now)
    pauses = []
    for _ in range(6):
        next_try = failed.failed("one", now)
        assert failed.rests("one", (now + next_try) / 2)
        assert not failed.rests("one", next_try)
        pauses.append(round(next_try - now, 3))
        now = next_try
    assert pauses == [RETRIES.first, 0.1, 0.2, 0.4, RETRIES.longest, RETRIES.longest]
    failed.answered("one")
    assert "one" not in failed
    assert failed.failed("one", now) == now


def test_failed_node_does_not_make_another_rest() -> None:
    failed = FailedNodes()
    failed.failed("one", 0.0)
    failed.failed("one", 0.0)
    assert failed.rests("one", 0.01)
    assert not failed.rests("two", 0.01)
