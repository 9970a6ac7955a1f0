"""How far it is: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

REDRAW = 0.1  # seconds, on a terminal
LINE = 10.0  # elsewhere
WIDTH = 28


def _plain(text: str) -> str:
    """Not in the red of errors, which standard error has otherwise."""
    return text


class Progress:
    def __init__(self, stream: Any, what: str, *, quiet: bool = False) -> None:
        self.stream, self.what, self.quiet = stream, what, quiet
        self.on_terminal = not quiet and stream.isatty()
        self.total: int | None = None
        self.done = 0
        self.start = self.shown = time.monotonic()

    def begin(self, total: int | None) -> None:
        self.total = total
        self.start = self.shown = time.monotonic()
        if self.on_terminal:
            self._draw()

    def advance(self, number: int) -> None:
        self.done += number
        now = time.monotonic()
        if self.quiet or now - self.shown < (REDRAW if self.on_terminal else LINE):
            return
        self.shown = now
        if self.on_terminal:
            self._draw()
        else:
            self.stream.write(f"{self.what} {self._numbers()}", _plain)

    def finish(self) -> None:
        if self.on_terminal:
            self._draw()
            self.stream.write("\n", _plain, ending="")
            self.stream.flush()

    def _draw(self) -> None:
        bar = ""
        if self.total:
            filled = min(WIDTH, WIDTH * self.done // self.total)
            bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] "
        # Over what was there, to the end of the line.
        self.stream.write(f"\r{self.what} {bar}{self._numbers()}\x1b[K", _plain, ending="")
        self.stream.flush()

    def _numbers(self) -> str:
        took = time.monotonic() - self.start
        rate = self.done / took if took > 0 else 0
        parts = [f"{self.done:,}"]
        if self.total:
            share = min(100, 100 * self.done // self.total)
            parts = [f"{share}%, {self.done:,} of {self.total:,}"]
        parts.append(f"{rate:,.0f}/s")
        if self.total and rate:
            parts.append(f"{_clock(max(0, self.total - self.done) / rate)} left")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
