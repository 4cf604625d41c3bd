"""What a benchmark reports, and how two contenders are timed beside each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `ratio` is ours divided by the rival's; `goal` is the text of the bar."""

    name: str
    ours: float
    rival_name: str
    rival: float
    unit: str
    goal: str
    met: bool
    spread: str = ""

    @property
    def ratio(self) -> float:
        """Not a number where nothing is divided by; two noughts are alike."""
        if self.ours == self.rival:
            return 1.0
        return self.ours / self.rival if self.rival else float("nan")

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ours": self.ours,
            "rival_name": self.rival_name,
            "rival": self.rival,
            "unit": self.unit,
            "ratio": None if math.isnan(self.ratio) else self.ratio,
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Pairs:
    """Interleaved measurements of two contenders: ours[i] and rival[i] were taken one after the other."""

    ours: Sequence[float]
    rival: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [mine / theirs for mine, theirs in zip(self.ours, self.rival, strict=True)]

    @property
    def median_ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the typical ratio: Student's t on the logarithms."""
        logarithms = [math.log(ratio) for ratio in self.ratios]
        centre = statistics.fmean(logarithms)
        margin = _student_t(len(logarithms) - 1) * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
        return math.exp(centre - margin), math.exp(centre + margin)

    def result(self, name: str, rival_name: str, unit: str, goal: str, met: Callable[[float, float], bool]) -> Result:
        """`met(median ours, median ratio)` decides whether the goal is reached."""
        ours, rival = statistics.median(self.ours), statistics.median(self.rival)
        low, high = self.interval
        spread = (
            f"ratio median {self.median_ratio:.3f}, {min(self.ratios):.3f} to {max(self.ratios):.3f}; "
            f"95 % interval {low:.3f} to {high:.3f}"
        )
        return Result(name, ours, rival_name, rival, unit, goal, met(ours, self.median_ratio), spread)


_STUDENT_T = {
    1: 12.71,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    19: 2.093,
}
"""Degrees of freedom -> the 97.5 % quantile."""


def _student_t(freedom: int) -> float:
    """Of the next smaller number in the table, which gives the wider interval; a single value has none."""
    return _STUDENT_T[max(known for known in _STUDENT_T if known <= freedom)]


def pairs(ours: Callable[[], float], rival: Callable[[], float], n: int = 10) -> Pairs:
    """Call the two in turn `n` times after one warm-up each; each call returns its own figure."""
    ours(), rival()
    mine, theirs = [], []
    for _ in range(n):
        mine.append(ours())
        theirs.append(rival())
    return Pairs(mine, theirs)
