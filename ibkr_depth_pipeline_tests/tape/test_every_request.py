"""Every request that a real client can send, full of secrets: none of them gets onto a tape."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from ib_insync import Contract, ExecutionFilter, Order, ScannerSubscription, TagValue, WshEventData
from ib_insync.client import Client

from ibkr_depth_pipeline.tape.files import Read, encode_entry
from ibkr_depth_pipeline.tape.messages import PREAMBLE, Way
from ibkr_depth_pipeline.tape.sanitizer import Sanitizer

ACCOUNT, OWNER, NOTE = "DU7654321", "Jane.Doe@example.com", "buy-the-dip-strategy"
SECRETS = (ACCOUNT, OWNER, NOTE, "4711.13")
OPTIONS = [TagValue("account", ACCOUNT)]
CONTRACT = Contract(conId=756733, symbol="SPY", secType="STK", exchange="ARCA", currency="USD")
ORDER = Order(action="BUY", totalQuantity=4711.13, lmtPrice=4711.13, account=ACCOUNT, orderRef=NOTE, modelCode=NOTE)
ARGUMENTS: dict[str, Any] = {
    "contract": CONTRACT,
    "order": ORDER,
    "execFilter": ExecutionFilter(acctCode=ACCOUNT),
    "subscription": ScannerSubscription(),
    "data": WshEventData(filter=NOTE),
    "numRows": 10,
    "isSmartDepth": False,
    "reqId": 7,
    "tickerId": 7,
    "orderId": 7,
}


class RecordingClient(Client):
    """ib_insync's client, connected at the newest version that it speaks, whose messages are kept."""

    def __init__(self) -> None:
        super().__init__(wrapper=object())
        self.connState = Client.CONNECTED
        self._serverVersion = Client.MaxClientVersion
        self.optCapab = NOTE
        self.messages: list[bytes] = []

    def sendMsg(self, msg: str) -> None:
        self.messages.append(msg.encode())


REQUESTS = [
    name
    for name, method in inspect.getmembers(Client, inspect.isfunction)
    if name.startswith(
        ("req", "cancel", "place", "exercise", "replace", "verify", "calculate", "update", "start", "sub")
    )
    and name != "updateReqId"
]


def messages_of(name: str) -> list[bytes]:
    client = RecordingClient()
    request: Callable[..., None] = getattr(client, name)
    request(*(argument(parameter) for parameter in inspect.signature(request).parameters))
    return client.messages


def argument(parameter: str) -> Any:
    if parameter.endswith("ptions"):
        return OPTIONS
    return ARGUMENTS.get(parameter, ACCOUNT if "acc" in parameter.lower() else NOTE)


def test_requests_are_there() -> None:
    assert len(REQUESTS) > 60
    assert {"placeOrder", "reqPnLSingle", "reqContractDetails"} <= set(REQUESTS)


@pytest.mark.parametrize("name", REQUESTS)
def test_request_brings_no_secret_onto_the_tape(name: str) -> None:
    sanitizer = Sanitizer()
    for way, greeting in ((Way.CLIENT, PREAMBLE), (Way.CLIENT, b"v157..176"), (Way.GATEWAY, b"176\0now\0")):
        sanitizer.sanitized(way, greeting)
    messages = messages_of(name)
    assert messages
    for message in messages:
        entry = Read(1, 1, Way.CLIENT, len(message), [sanitizer.sanitized(Way.CLIENT, message)])
        line = encode_entry(entry).decode()
        assert not [secret for secret in SECRETS if secret in line]
