"""Makes one query the method of both readers: what it returns, or, for asyncio, what gives it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from ibkr_depth_pipeline.reader.selection import Names, Query

if TYPE_CHECKING:
    from ibkr_depth_pipeline.reader.readers import AsyncDepthReader, DepthReader

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A method of both readers that carries out a query: returns its result, or, for asyncio, what gives it."""

    def __init__(self, query: Callable[P, Query[T]]) -> None:
        self._query = query
        self.__doc__ = query.__doc__

    @overload
    def __get__(self, reader: None, owner: type) -> Callable[P, Query[T]]: ...
    @overload
    def __get__(self, reader: DepthReader, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, reader: AsyncDepthReader, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, reader: Any, owner: type) -> Any:
        return self._query if reader is None else _bound(reader, self._query)


class Lookup(Generic[T]):
    """As Method, for what is one value of one symbol, and a mapping of several."""

    def __init__(self, query: Callable[..., Query[Any]], of: type[T]) -> None:
        self._query = query
        self._of = of
        self.__doc__ = query.__doc__

    @overload
    def __get__(self, reader: None, owner: type) -> Callable[..., Query[Any]]: ...
    @overload
    def __get__(self, reader: DepthReader, owner: type) -> LookupCall[T]: ...
    @overload
    def __get__(self, reader: AsyncDepthReader, owner: type) -> AsyncLookupCall[T]: ...
    def __get__(self, reader: Any, owner: type) -> Any:
        return self._query if reader is None else _bound(reader, self._query)


class LookupCall(Protocol[T]):
    """One symbol: its value or None. A collection, or nothing for all: what there is, by symbol."""

    @overload
    def __call__(self, symbols: str, *, missing_ok: bool = ...) -> T | None: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, symbols: Iterable[str] | None = ..., *, missing_ok: bool = ...) -> dict[str, T]: ...
    def __call__(self, symbols: Names = None, *, missing_ok: bool = False) -> Any:
        """See the class."""


class AsyncLookupCall(Protocol[T]):
    """See LookupCall."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, symbols: str, *, missing_ok: bool = ...
    ) -> Coroutine[Any, Any, T | None]: ...
    @overload
    def __call__(
        self, symbols: Iterable[str] | None = ..., *, missing_ok: bool = ...
    ) -> Coroutine[Any, Any, dict[str, T]]: ...
    def __call__(self, symbols: Names = None, *, missing_ok: bool = False) -> Any:
        """See LookupCall."""


def _bound(reader: Any, query: Callable[..., Query[Any]]) -> Any:
    @functools.wraps(query)
    def method(*args: Any, **options: Any) -> Any:
        return reader._ask(query(*args, **options))

    return method
