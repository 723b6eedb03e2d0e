"""A client of nothing but bytes, for what a polite client would never send or would hide."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway, parse_scenario
from ibkr_depth_pipeline.simulation.rows import WireRow


class WireClient:
    """Speaks frames of fields to a gateway at an address. `async with WireClient(host, port) as client:`"""

    def __init__(self, host: str, port: int, *, versions: str = "v157..176", client_id: int | None = 1) -> None:
        self._address = (host, port)
        self._versions = versions
        self._client_id = client_id
        self.version = 0
        self.received: list[list[str]] = []
        """Every message so far, as fields."""

    async def __aenter__(self) -> "WireClient":
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        if self._client_id is not None:
            await self.greet()
            self.send(71, 2, self._client_id, "")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def greet(self) -> None:
        offer = self._versions.encode()
        self.send_bytes(b"API\0" + struct.pack(">I", len(offer)) + offer)
        self.version = int((await self.next())[0])

    def send_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, *fields: object) -> None:
        body = "".join(f"{field}\0" for field in fields).encode()
        self.send_bytes(struct.pack(">I", len(body)) + body)

    def subscribe(
        self, request_id: int, symbol: str, exchange: str, rows: int = 10, *, sec_type: str = "STK", smart: int = 0
    ) -> None:
        contract = (0, symbol, sec_type, "", 0.0, "", "", exchange, "", "USD", "", "")
        self.send(10, 5, request_id, *contract, rows, smart, "")

    def cancel(self, request_id: int, smart: int = 0) -> None:
        self.send(11, 1, request_id, smart)

    async def next(self) -> list[str]:
        """The next message's fields. Raises IncompleteReadError or ConnectionError at the end of the connection."""
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        fields = (await self._reader.readexactly(length)).decode().split("\0")[:-1]
        self.received.append(fields)
        return fields

    async def until(self, *start: object) -> list[str]:
        """Reads on up to the first message that begins with these fields; None stands for any field."""
        wanted = [None if field is None else str(field) for field in start]
        while True:
            fields = await self.next()
            if len(fields) >= len(wanted) and all(w in (None, f) for w, f in zip(wanted, fields, strict=False)):
                return fields

    async def until_error(self, code: int) -> list[str]:
        """Reads on up to that error; the fields are 4, version, request id, code, text, ..."""
        return await self.until(4, None, None, code)

    async def until_closed(self) -> bytes:
        """Reads to the end; what came. Raises ConnectionResetError where the end was a reset."""
        return await self._reader.read(-1)


STILL = {"rows_per_second": 0.0, "first_row_delay": 0.0}
"""Options of a gateway whose books open at once and then do not move."""


@asynccontextmanager
async def connected(
    scenario: list[object] | None = None, **options: object
) -> AsyncIterator[tuple[SimulatedGateway, WireClient]]:
    """A gateway and one client that has started; books are still unless the options say otherwise."""
    chosen = GatewayOptions(**{**STILL, **options})  # type: ignore[arg-type]
    async with (
        SimulatedGateway(chosen, parse_scenario(scenario or [])) as gateway,
        WireClient(gateway.host, gateway.port) as client,
    ):
        await client.until_error(2158)
        yield gateway, client


def row_of(fields: list[str]) -> WireRow:
    named = fields[0] == "13"
    position, *rest = fields[3:]
    market_maker = rest.pop(0) if named else ""
    operation, side, price, size = rest[:4]
    return WireRow(int(position), int(operation), int(side), float(price), float(size), market_maker)


async def rows(client: WireClient, count: int) -> list[WireRow]:
    """The next rows, past everything else."""
    found: list[WireRow] = []
    while len(found) < count:
        fields = await client.next()
        if fields[0] in ("12", "13"):
            found.append(row_of(fields))
    return found
