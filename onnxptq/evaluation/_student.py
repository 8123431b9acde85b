"""Student's t distribution for arrays of degrees of freedom, by the incomplete beta function's continued fraction.

NumPy has no t distribution, and SciPy is no dependency; the tests compare both functions with SciPy's.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TERMS = 2000
"""Of the continued fraction. It converges in about sqrt(degrees) terms, so these are enough for `_MOST_DEGREES`."""

_MOST_DEGREES = 1e6
"""Beyond these the distribution is the normal one to six digits."""

_TINY = 1e-300
_BISECTIONS = 60


def student_tail(t: npt.ArrayLike, degrees: npt.ArrayLike) -> Floats:
    """P(T >= t) of Student's t: float64, of the broadcast shape.

    Args:
        t: number or array; infinite is allowed.
        degrees: of freedom, at least 1.
    """
    at, freedom = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(degrees, dtype=np.float64))
    freedom = np.minimum(freedom, _MOST_DEGREES)
    finite = np.where(np.isfinite(at), at, 0.0)
    beyond = 0.5 * _incomplete_beta(freedom / 2.0, freedom / (freedom + finite**2))
    beyond = np.where(np.isfinite(at), beyond, 0.0)
    return np.where(at >= 0.0, beyond, 1.0 - beyond)


def student_quantile(probability: float, degrees: npt.ArrayLike) -> Floats:
    """The t that T stays below with this probability, 0.5 to below 1: float64, of the shape of `degrees`."""
    freedom = np.minimum(np.asarray(degrees, dtype=np.float64), _MOST_DEGREES)
    distinct, index = np.unique(freedom, return_inverse=True)
    found: Floats = _quantiles(probability, tuple(distinct.tolist()))[index].reshape(freedom.shape)
    return found


@functools.lru_cache(maxsize=64)
def _quantiles(probability: float, degrees: tuple[float, ...]) -> Floats:
    distinct = np.array(degrees)
    # Bisection in x = degrees / (degrees + t^2), which falls from 1 to 0 as t rises from 0.
    low, high = np.zeros_like(distinct), np.ones_like(distinct)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        above = 0.5 * _incomplete_beta(distinct / 2.0, middle) > 1.0 - probability
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    found: Floats = np.sqrt(distinct * (1.0 - high) / np.maximum(high, _TINY))
    return found


def _incomplete_beta(a: Floats, x: Floats) -> Floats:
    """The regularized incomplete beta function I_x(a, 1/2): float64, (...)."""
    b = np.full_like(a, 0.5)
    # Where x is large the fraction converges for 1 - I_{1-x}(b, a).
    swap = x > (a + 1.0) / (a + b + 2.0)
    first, second, at = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1.0 - x, x)
    log_beta = np.vectorize(_log_beta_with_half, otypes=[np.float64])(a)
    inside = np.clip(at, _TINY, 1.0)
    front = np.exp(first * np.log(inside) + second * np.log1p(-np.minimum(inside, 1.0 - 1e-16)) - log_beta) / first
    value = np.where(at <= 0.0, 0.0, front * _fraction(first, second, at))
    return np.where(swap, 1.0 - value, value)


def _log_beta_with_half(a: float) -> float:
    return math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)


def _fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """The continued fraction of the incomplete beta function by Lentz's method (DLMF 8.17.22)."""

    def away_from_zero(values: Floats) -> Floats:
        return np.where(np.abs(values) < _TINY, _TINY, values)

    c = np.ones_like(a)
    d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    result = d
    for m in range(1, _TERMS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / away_from_zero(1.0 + numerator * d)
            c = away_from_zero(1.0 + numerator / c)
            step = c * d
            result = result * step
        if bool((np.abs(step - 1.0) < 1e-15).all()):
            break
    return result
