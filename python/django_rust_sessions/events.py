"""An event for what is called in the midst of other code."""

import contextlib
import queue


class Event:
    """A threading.Event for one thread that waits, whose set() may also be called within that
    thread's wait(), by the handler of a signal or by the garbage collector: threading's would wait
    for its own lock there, for ever."""

    def __init__(self) -> None:
        self._is_set = False
        # Its put() may be called anywhere.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._wakes.put(None)

    def wait(self, seconds: float) -> bool:
        if not self._is_set:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=seconds)
        return self._is_set
