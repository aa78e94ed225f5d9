"""Variance retention ratio by the formulas of arXiv 1901.06588 as printed, with 60 digits."""

from mpmath import erfc, floor, mp, mpf, sqrt

mp.dps = 60


def _two_q(x):
    return erfc(x / sqrt(mpf(2)))


def vrr_lemma_1(acc_bits, length):
    """Full swamping only."""
    bound = mpf(2) ** acc_bits
    terms = [
        (i, _two_q(bound / sqrt(mpf(i))) * (1 - _two_q(bound / sqrt(mpf(i - 1))))) for i in range(2, length)
    ]
    last = 1 - _two_q(bound / sqrt(mpf(length)))
    normalizer = sum(q for _, q in terms) + last
    return (sum(i * q for i, q in terms) + length * last) / (normalizer * length)


def vrr_theorem_1(acc_bits, product_bits, length):
    """Full and partial swamping; `length` may be no integer."""
    n, bound = mpf(length), mpf(2) ** acc_bits
    c = mpf(2) ** (acc_bits - 3 * product_bits) / 3

    def alpha(r):
        return c * sum(2**j * (mpf(2) ** j - 1) * (mpf(2) ** (j + 1) - 1) for j in range(1, r))

    late = alpha(product_bits + 1)
    top = k1 = k2 = mpf(0)
    for i in range(2, int(floor(n))):
        if i > late:
            q = _two_q(bound / sqrt(mpf(i))) * (1 - _two_q(bound / sqrt(mpf(i - 1))))
            top, k1 = top + (i - late) * q, k1 + q
    for r in range(2, product_bits + 1):
        if n > alpha(r):
            low = mpf(2) ** (acc_bits - product_bits + r - 1)
            q = 2 * low * _two_q(low / sqrt(n)) * (1 - _two_q(2 * low / sqrt(n)))
            top, k2 = top + (n - alpha(r)) * q, k2 + q
    k3 = 1 - _two_q(mpf(2) ** (acc_bits - product_bits + 1) / sqrt(n))
    return (top + n * k3) / ((k1 + k2 + k3) * n)
