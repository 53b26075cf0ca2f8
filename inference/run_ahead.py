"""A stage of a pipeline that runs in a thread of its own, ahead of the stages that take its items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from inference.stage_timer import StageClock, do_nothing

T = TypeVar("T")

POLL_S = 0.1  # seconds between checks, while no item is ready


class RunAhead(Generic[T]):
    """Iterates over the same items, in the same order, made in a thread that is at most `n_ahead` items ahead.

    A context manager: the thread starts with it, and has ended when it is left, however that happens; the iterator has
    been closed then, too. An error of the items is raised after those made before it, as without a thread.
    """

    def __init__(
        self, items: Iterable[T], n_ahead: int, clock: StageClock, on_poll: Callable[[], None] = do_nothing
    ) -> None:
        """Prepare the thread.

        clock: of the thread that takes the items; `items` use a branch of it, if any. Its deadlines are checked, and
        `on_poll` is called, for each item and every 100 ms while none is ready; what they raise ends the work.
        """
        self._items = items
        self._n_ahead = n_ahead
        self._clock = clock
        self._on_poll = on_poll
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_complete = self._is_stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._make_all, name="viseme-run-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._is_stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()  # not longer than the item takes that is being made

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        is_over = False
        while not is_over:
            is_over = self._poll()
            self._clock.check_branches()
            self._on_poll()
        with self._changed:
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            error, self._error = self._error, None
            raise error or StopIteration

    def _poll(self) -> bool:
        """Wait a while for an item; return whether there is one, or will be none."""
        with self._changed:
            if not self._ready and not self._is_complete:
                with self._clock.waiting():
                    self._changed.wait(POLL_S)
            return bool(self._ready) or self._is_complete

    def _make_all(self) -> None:
        iterator = iter(self._items)
        try:
            while self._has_room():
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                self._add(item)
                del item  # the one who takes it may free it
        except BaseException as err:  # noqa: BLE001 - raised again for the one who takes the items
            self._error = err
        finally:
            self._close(iterator)
            with self._changed:
                self._is_complete = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until fewer than `n_ahead` items are ready; return False if no more are wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or len(self._ready) < self._n_ahead)
            return not self._is_stopped

    def _add(self, item: T) -> None:
        with self._changed:
            self._ready.append(item)
            self._changed.notify_all()

    def _close(self, iterator: Iterator[T]) -> None:
        """Close a generator here, where it ran: its `finally` blocks may use what belongs to this thread."""
        close = getattr(iterator, "close", None)
        try:
            if close is not None:
                close()
        except BaseException as err:  # noqa: BLE001 - likewise
            self._error = self._error or err
