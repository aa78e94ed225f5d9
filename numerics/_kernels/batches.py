"""Many small products of matrices in one call, packed and summed one after the other."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from numba import njit

from numerics._kernels.panels import pack_columns, pack_rows
from numerics._kernels.tiles import gemm


@njit(cache=True, nogil=True)
def gemm_batch(
    a, b, out, starts, chunk, setting, control, panels, from_zero, narrow, rows, columns, sums, first, last
):
    """Products ``first .. last - 1`` of ``out = a @ b`` for (batch, m, k), (batch, k, n), (batch, m, n).

    `narrow` (m * k), `columns` (panels, k, lanes) and `sums` (m, panels * lanes) are room for one product;
    `rows` is `narrow` itself, or as much room in float64 for sums in float64. For the rest see `tiles.gemm`.
    """
    for i in range(first, last):
        pack_rows(a[i], narrow, starts)
        pack_columns(b[i], columns)
        if rows.itemsize == 8:
            rows[:] = narrow
        if from_zero:
            sums[:] = 0.0
        gemm(rows, starts, columns, sums, chunk, setting, control, panels, from_zero, 0, columns.shape[0])
        out[i] = sums[:, : out.shape[2]]
