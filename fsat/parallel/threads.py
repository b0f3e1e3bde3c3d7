"""Work that threads do ahead of the one who asks, in order, so that how many there are changes no result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Generator[Result]:
    """As ``map(function, items)``, done by threads.

    Args:
        function: lets other threads run while it works, as NumPy and libsndfile do.
        items: taken as they are needed.
        workers: how many threads.
        ahead: results at most that wait to be asked for.
    """
    items = iter(items)
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            while len(waiting) < ahead:
                try:
                    waiting.append(pool.submit(function, next(items)))
                except StopIteration:
                    break
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
