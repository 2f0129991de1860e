"""How long a batch takes, as a fixed cost and a cost per record, fitted on the last batches.

After Apache Beam's `BatchElements` (a line through the last timings, outliers left out) and BentoML's dispatcher
(which learned in production that neither coefficient may become negative), with weights for errors that grow with the
time, and with a test of whether the sizes seen differ enough to tell the two costs apart.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

__all__ = ("AffineModel",)

_WINDOW = 32
_TRIM = 0.1  # share of the samples dropped at each end, by their ratio to the prediction
_FEW = 8
_FIRST_FIXED = 0.99  # one batch cannot tell the costs apart: taken as nearly all fixed, so that a larger one is tried
_SLOPE_FLOOR = 0.02  # share of the time that is due to records, at least: a size must always cost something
_USUAL_NOISE = 0.05  # what a residual is taken to be while there are few to say
_SLOPE_ERROR = 0.1  # above this error of the share that is due to records the sizes seen do not tell


class AffineModel:
    """Seconds for a batch of n records: `fixed` + `per_record` x n. Predicts nothing before the first sample."""

    def __init__(self) -> None:
        self.fixed = 0.0
        self.per_record = 0.0
        self._samples: deque[tuple[int, float]] = deque(maxlen=_WINDOW)

    def __bool__(self) -> bool:
        return self.per_record > 0.0

    def predict(self, size: int) -> float:
        """Return the seconds that a batch of `size` records is expected to take."""
        return self.fixed + self.per_record * size

    def size_for(self, seconds: float) -> float:
        """Return the size, not rounded and possibly negative, that takes `seconds`."""
        return (seconds - self.fixed) / self.per_record

    def largest(self) -> int:
        """Return the largest size among the samples kept."""
        return max(size for size, _ in self._samples)

    def samples(self) -> list[tuple[int, float]]:
        """Return the samples kept, oldest first."""
        return list(self._samples)

    def add(self, size: int, seconds: float) -> None:
        """Take a sample, without fitting it yet."""
        if not self:
            self.fixed = _FIRST_FIXED * seconds
            self.per_record = (1.0 - _FIRST_FIXED) * seconds / size
        self._samples.append((size, seconds))

    def load(self, fixed: float, per_record: float, samples: Sequence[tuple[int, float]]) -> None:
        """Replace all that was learned."""
        self.fixed = fixed
        self.per_record = per_record
        self._samples = deque(samples, maxlen=_WINDOW)

    def forget(self, keep: int) -> float:
        """Drop all but the last `keep` samples, scale both costs to what those say, and return by how much."""
        while len(self._samples) > keep:
            self._samples.popleft()
        factor = _median(seconds / self.predict(size) for size, seconds in self._samples)
        self._scale(factor)
        return factor

    def fit(self) -> None:
        """Fit both costs to the samples, or scale them alike where the sizes seen do not tell them apart."""
        kept = self._trimmed()
        line = _line(kept) if len(kept) > 2 else None
        if line is None:
            self._scale(_centre([ratio for ratio, _, _ in kept]))
        else:
            self.fixed, self.per_record = line

    def _scale(self, factor: float) -> None:
        self.fixed *= factor
        self.per_record *= factor

    def _trimmed(self) -> list[tuple[float, float, int]]:
        """Return (measured / predicted, predicted, size) of the samples without the tails."""
        fixed, per_record = self.fixed, self.per_record
        rows: list[tuple[float, float, int]] = []
        for size, seconds in self._samples:
            predicted = fixed + per_record * size
            rows.append((seconds / predicted, predicted, size))
        rows.sort()
        tail = int(_TRIM * len(rows))
        return rows[tail : len(rows) - tail]


def _centre(ratios: Sequence[float]) -> float:
    """Return the mean of ratios without their tails, or their median where there were too few to have tails."""
    return sum(ratios) / len(ratios) if len(ratios) > _FEW else _median(ratios)


def _line(rows: Sequence[tuple[float, float, int]]) -> tuple[float, float] | None:
    """Return both costs with the least squared relative error, or None where the slope would be mostly noise."""
    count = len(rows)
    mean_size = sum(size for _, _, size in rows) / count
    spread = sum((size / mean_size - 1.0) ** 2 for _, _, size in rows)
    imagined = 2.0 * _USUAL_NOISE**2  # three points can lie on a line by luck, so two more are imagined that do not
    if imagined > _SLOPE_ERROR**2 * count * spread:
        return None
    scaled = [(ratio, 1.0 / predicted, size / predicted) for ratio, predicted, size in rows]
    xx = xy = yy = xr = yr = 0.0
    for ratio, x, y in scaled:
        xx += x * x
        xy += x * y
        yy += y * y
        xr += x * ratio
        yr += y * ratio
    determinant = xx * yy - xy * xy
    if determinant <= 1e-12 * xx * yy:
        return None
    per_record = (xx * yr - xy * xr) / determinant
    fixed = (xr - per_record * xy) / xx
    if fixed < 0.0:
        fixed, per_record = 0.0, yr / yy
    mean_seconds = sum(ratio * predicted for ratio, predicted, _ in rows) / count
    floor = _SLOPE_FLOOR * mean_seconds / mean_size
    if per_record < floor:
        per_record, fixed = floor, max(0.0, (xr - floor * xy) / xx)
    squares = sum((ratio - fixed * x - per_record * y) ** 2 for ratio, x, y in scaled)
    error = math.sqrt((squares + imagined) / (count * spread))
    return (fixed, per_record) if error <= _SLOPE_ERROR else None


def _median(values: Iterable[float]) -> float:
    # Python's own is in a module that takes fractions and decimals along, and every run would wait for them.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
