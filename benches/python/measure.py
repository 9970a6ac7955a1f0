"""Contenders that do the same in turns: whatever else the machine does meets all of them."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns
from typing import Any

# Time of one contender in one round.
ROUND_NS = 4_000_000


def nothing(number: int) -> list[None]:
    return [None] * number


@dataclass
class Contender:
    """Something that can be done many times."""

    name: str
    run: Callable[[Any], Any]
    # Makes as many arguments for `run` as it is told. Not timed.
    prepare: Callable[[int], list[Any]] = nothing
    # How many times as fast ours should be.
    target: float | None = None
    # Of a floor: how many times its time ours may take, or how many microseconds more.
    within: float | None = None
    beyond: float | None = None
    # Sets the settings that it needs. Not timed.
    enter: Callable[[], None] = lambda: None
    # How many operations one call of `run` is.
    operations: int = 1
    samples: list[float] = field(default_factory=list)

    def time(self, number: int) -> float:
        """Microseconds an operation."""
        self.enter()
        arguments, run = self.prepare(number), self.run
        start = perf_counter_ns()
        for argument in arguments:
            run(argument)
        return (perf_counter_ns() - start) / number / self.operations / 1000


@dataclass
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Spread":
        low, median, high = statistics.quantiles(samples, n=4)
        return cls(median, low, high)

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


@dataclass
class Comparison:
    """Ours beside another contender: the ratio of each round, or the difference."""

    name: str
    other: Spread
    ratio: Spread
    wanted: str = ""
    met: bool | None = None


@dataclass
class Row:
    title: str
    unit: str
    ours: Spread
    comparisons: list[Comparison]

    def lines(self) -> Iterable[str]:
        yield f"{self.title:34} ours {self.ours.text(1):>28} {self.unit}"
        for one in self.comparisons:
            verdict = {True: "met", False: "MISSED", None: ""}[one.met]
            yield (
                f"{'':34}   {one.name:36} {one.other.text(1):>26}"
                f"   {one.ratio.text(2):>20} times   {one.wanted:>22} {verdict}"
            ).rstrip()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    title: str, ours: Contender, *others: Contender, rounds: int, number: int | None = None
) -> Row:
    """Each does it `number` times a round; without one, as often as it takes to measure it."""
    contenders = (ours, *others)
    if number is None:
        slowest = max(contender.time(3) * contender.operations for contender in contenders)
        number = max(1, int(ROUND_NS / 1000 / slowest))
    for _ in range(rounds):
        for contender in contenders:
            contender.samples.append(contender.time(number))
    comparisons = [beside(ours.samples, other) for other in others]
    return Row(title, "us", Spread.of(ours.samples), comparisons)


def beside(ours: list[float], other: Contender) -> Comparison:
    """The ratio of each round: how often ours fits into the other, or a floor into ours."""
    pairs = list(zip(ours, other.samples, strict=True))
    is_floor = other.name.startswith("floor")
    ratios = [mine / its if is_floor else its / mine for mine, its in pairs]
    found = Comparison(other.name, Spread.of(other.samples), Spread.of(ratios))
    if other.target is not None:
        found.wanted, found.met = f"at least {other.target:g}", found.ratio.median >= other.target
    elif other.within is not None:
        found.wanted, found.met = f"at most {other.within:g}", found.ratio.median <= other.within
    elif other.beyond is not None:
        more = statistics.median(mine - its for mine, its in pairs)
        found.wanted = f"{more:+.1f} us, at most {other.beyond:g}"
        found.met = more <= other.beyond
    return found


def single(title, unit, value, name, other, ratio, wanted, met):
    """A row of what is not measured in turns."""
    one = [Spread(number, number, number) for number in (value, other, ratio)]
    return Row(title, unit, one[0], [Comparison(name, one[1], one[2], wanted, met)])
