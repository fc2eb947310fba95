"""95 % intervals of shares, means and differences; figures are in percent where they are of shares."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""

_T95 = (math.nan, 12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5 % quantile of Student's t, by degrees of freedom."""


@dataclass(frozen=True)
class Difference:
    """A difference, in percentage points, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``higher``, ``lower``, or ``not told apart`` where the interval holds 0."""
        return "not told apart" if self.low <= 0 <= self.high else "higher" if self.low > 0 else "lower"


def wilson_interval(num_right: float, num_images: int) -> tuple[float, float]:
    """The 95 % score interval of a share, in percent (Wilson, JASA 1927)."""
    share, spread = num_right / num_images, _Z95**2 / num_images
    middle = share + spread / 2
    half = _Z95 * math.sqrt(share * (1 - share) / num_images + spread / (4 * num_images))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return 100 * max(0.0, low), 100 * min(1.0, high)


def standard_error(num_right: float, num_images: int) -> float:
    """That of a share, in percentage points, as if there were two more images, one of which is right.

    So it is not 0 where all are right (Agresti & Coull, Am. Stat. 1998).
    """
    share = (num_right + 1) / (num_images + 2)
    return 100 * math.sqrt(share * (1 - share) / (num_images + 2))


def paired_difference(one: Iterable[float], other: Iterable[float]) -> Difference:
    """The difference in accuracy of two networks on the same images.

    The adjusted Wald interval of paired shares (Bonett & Price, J. Educ. Behav. Stat. 2012): as if there were two
    more images, on one of which either network alone is right. It decides as McNemar's test does.

    Args:
        one, other: How right each is, image by image: 0 or 1, a share for ties.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    num_images = len(differences) + 2
    ahead, behind = (1 + sum(sign * d for d in differences if sign * d > 0) for sign in (1, -1))
    middle = (ahead - behind) / num_images
    half = _Z95 * math.sqrt(((ahead + behind) / num_images - middle**2) / num_images)
    return Difference(100 * fmean(differences), 100 * (middle - half), 100 * (middle + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t), over seeds; NaN for one value."""
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return fmean(values), half


def paired_runs(differences: Sequence[Sequence[float]]) -> Difference:
    """The mean difference of two kinds of runs, paired run by run and image by image.

    The spread over runs, by Student's t, and that over images are added as independent. What is of neither alone counts
    twice: the interval is rather wide than narrow.

    Args:
        differences: ``[runs, images]``, two runs or more: how much more right, between -1 and 1.
    """
    of_runs, of_images = [fmean(run) for run in differences], [fmean(image) for image in zip(*differences, strict=True)]
    middle = fmean(of_runs)
    half = math.hypot(*(mean_interval(values)[1] for values in (of_runs, of_images)))
    return Difference(100 * middle, 100 * (middle - half), 100 * (middle + half))


def difference_of_means(one: Sequence[float], other: Sequence[float]) -> Difference:
    """The difference of the means of two groups of independent runs, at least two each (Welch, Biometrika 1947)."""
    parts = [stdev(values) ** 2 / len(values) for values in (one, other)]
    value, spread = fmean(one) - fmean(other), math.fsum(parts)
    freedom = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    half = t_quantile(int(spread**2 / freedom + 1e-9)) * math.sqrt(spread) if spread else 0.0
    return Difference(value, value - half, value + half)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond the table by its expansion (Abramowitz & Stegun 26.7.5)."""
    if freedom < len(_T95):
        return _T95[freedom]
    z, n = _Z95, float(freedom)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / n**power for power, term in enumerate(terms, 1))
