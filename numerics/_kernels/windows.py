"""Products of convolutions: windows of images packed for the register tiles a block at a time.

An image lies in memory in phases, (channels, row phases, column phases, rows, columns): the pixel in row y is
row ``y // stride`` of phase ``y % stride``, so that what windows of any stride see at neighbouring
positions, lies side by side. A window element then is one offset from the place of its window.

Lines are windows in panels of one vector of positions, (panels, k, lanes): right operands of a convolution
and of its input gradient. In the weight gradient positions are summed, and lines are interleaved.
"""

import numpy as np
from numba import njit

from numerics._kernels.panels import copy_scalar, copy_vector, interleave, pack_rows
from numerics._kernels.tiles import ADD, DEPTH, REPLACE, RESUME, _tile
from numerics._kernels.vectors import LANES_32, read_control, write_control


@njit(cache=True, nogil=True)
def place(images, out, before, spread):
    """Images (n, c, h, w), spread by `spread`, from `before` on, among zeros.

    `out` is (n, c, row phases, column phases, rows, columns); what does not fit is left out. One of spread
    and phases is 1 along each axis.
    """
    n, channels, height, width = images.shape
    row_phases, column_phases, rows, columns = out.shape[2:]
    plane = row_phases * column_phases * rows * columns
    flat, pixels = out.reshape(-1), images.reshape(-1)
    # Where each row goes, below 0 if nowhere; and of each phase of columns the first pixel that is not left
    # out, where it goes, and how many there are. A division takes as long as a row of pixels.
    to_rows = np.full(height, -1)
    for i in range(height):
        y = before[0] + i * spread[0]
        if 0 <= y < row_phases * rows:
            to_rows[i] = (y % row_phases * column_phases * rows + y // row_phases) * columns
    parts = np.empty((column_phases, 3), np.int64)
    skipped = max(0, -(before[1] // spread[1]))
    for phase in range(column_phases):
        j = skipped + (phase - before[1] - skipped) % column_phases
        x = (before[1] + j * spread[1]) // column_phases
        count = min(-((j - width) // column_phases), -((x - columns) // spread[1]))
        parts[phase] = j, phase * rows * columns + x, count
    together = spread[1] == 1 and column_phases == 1
    for number in range(n * channels):
        flat[number * plane : (number + 1) * plane] = np.float32(0.0)
        for i in range(height):
            if to_rows[i] < 0:
                continue
            for phase in range(column_phases):
                source = (number * height + i) * width + parts[phase, 0]
                to = number * plane + to_rows[i] + parts[phase, 1]
                count = parts[phase, 2]
                if together:
                    _copy(images.ctypes.data + 4 * source, out.ctypes.data + 4 * to, count)
                else:
                    for x in range(count):
                        flat[to + x * spread[1]] = pixels[source + x * column_phases]


@njit(nogil=True)
def _copy(source, target, count):
    """Copy float32 from one address to another: in whole vectors, of which the last two may overlap."""
    whole = count - LANES_32
    for x in range(0, whole, LANES_32):
        copy_vector(source + 4 * x, target + 4 * x)
    if whole >= 0:
        copy_vector(source + 4 * whole, target + 4 * whole)
    else:
        for x in range(count):
            copy_scalar(source + 4 * x, target + 4 * x)


@njit(nogil=True)
def _line_up(images, start, offsets, size, steps, first, panels, out, height, runs):
    """Windows at `panels` vectors of positions from `first` on; `out` is (panels, height, lanes).

    `images` is flat, `start` the place of the first window in it, `size` (n, rows, columns) counts positions,
    `steps` are those from image to image and from row to row. Elements of `out` beyond the offsets or the
    positions become zeros. `runs` is room for the places and lanes of as many runs as there are lanes. Every
    run is copied as a whole vector, whose end the next one overwrites: up to a vector after `out`, too.
    """
    samples, rows, columns = size
    taps = offsets.shape[0]
    last = images.shape[0] - LANES_32 - offsets.max()
    sample, row, column = first // (rows * columns), first // columns % rows, first % columns
    for p in range(panels):
        count, lane = 0, 0
        while lane < LANES_32 and sample < samples:
            at = start + sample * steps[0] + row * steps[1] + column
            length = min(columns - column, LANES_32 - lane)
            # Runs that meet in memory are one.
            if count == 0 or runs[count - 1, 0] + lane - runs[count - 1, 1] != at:
                runs[count, 0], runs[count, 1] = at, lane
                count += 1
            lane, column = lane + length, column + length
            if column == columns:
                column, row = 0, row + 1
                if row == rows:
                    row, sample = 0, sample + 1
        panel = out.ctypes.data + 4 * p * height * LANES_32
        if count > 0 and runs[count - 1, 0] <= last:
            first_run, second_run = images.ctypes.data + 4 * runs[0, 0], images.ctypes.data + 4 * runs[1, 0]
            second_lane = 4 * runs[1, 1]
            for k in range(taps):
                line, place = panel + 4 * k * LANES_32, 4 * offsets[k]
                copy_vector(first_run + place, line)
                if count > 1:
                    copy_vector(second_run + place, line + second_lane)
                for run in range(2, count):
                    copy_vector(images.ctypes.data + 4 * runs[run, 0] + place, line + 4 * runs[run, 1])
        else:  # at the end of the images a vector would read beyond them
            for run in range(count):
                at, to = runs[run]
                for k in range(taps):
                    for j in range(to, min(LANES_32, to + images.shape[0] - at - offsets[k])):
                        out[p, k, j] = images[at + offsets[k] + j - to]
        if lane < LANES_32:
            for k in range(taps):
                for j in range(lane, LANES_32):
                    out[p, k, j] = np.float32(0.0)
        for k in range(taps, height):
            for j in range(LANES_32):
                out[p, k, j] = np.float32(0.0)


@njit(nogil=True)
def _interleave(source, places, starts, columns, stride, k, out):
    """Lines of one vector of products, from k on, as a part of panels of `stride` products at address `out`.

    The lines are at address `source` and so many elements after it as `places` tells, for every row or lane.
    They become panels of rows, with `starts`, or of whole vectors of `columns`, if there are any.
    """
    if columns:
        for i in range(0, columns, LANES_32):
            to = out + 4 * (i * stride + k * LANES_32)
            interleave(source, places.ctypes.data + 8 * i, to, LANES_32)
    else:
        for t in range(starts.shape[0] - 1):
            i, rows = starts[t], starts[t + 1] - starts[t]
            to = out + 4 * (i * stride + k * rows)
            if rows == 1:
                copy_vector(source + 4 * places[i], to)
            else:
                interleave(source, places.ctypes.data + 8 * i, to, rows)


@njit(nogil=True)
def _turn(images, start, offsets, size, steps, first, panels, lines, runs, starts, columns, stride, out):
    """Windows as lines, interleaved: see `_line_up` and `_interleave`.

    There are offsets for whole vectors of columns, of which the first `columns` count; `lines` (1, k, lanes)
    is room for those that do not come from one run of memory.
    """
    rows, width = size[1], size[2]
    between = np.arange(offsets.shape[0]) * LANES_32
    count = columns if columns else offsets.shape[0]
    last = images.shape[0] - LANES_32 - offsets.max()
    position = first
    sample, row, column = first // (rows * width), first // width % rows, first % width
    for p in range(panels):
        at = start + sample * steps[0] + row * steps[1] + column
        if column + LANES_32 <= width and sample < size[0] and at <= last:
            source = images.ctypes.data + 4 * at
            _interleave(source, offsets, starts, columns, stride, p * LANES_32, out)
        else:
            _line_up(images, start, offsets[:count], size, steps, position, 1, lines, count, runs)
            _interleave(lines.ctypes.data, between, starts, columns, stride, p * LANES_32, out)
        position += LANES_32
        column += LANES_32
        while column >= width:
            column, row = column - width, row + 1
            if row == rows:
                row, sample = 0, sample + 1


@njit(cache=True, nogil=True)
def line_up(images, start, offsets, size, steps, out):
    """Windows at all positions; `out` is (panels, k, lanes), with room for a vector after it."""
    runs = np.empty((LANES_32, 2), np.int64)
    _line_up(images, start, offsets, size, steps, 0, out.shape[0], out, out.shape[1], runs)


@njit(nogil=True)
def _whole(offsets):
    """Offsets for whole vectors: the last one again and again."""
    out = np.empty(-(-offsets.shape[0] // LANES_32) * LANES_32, np.int64)
    for k in range(out.shape[0]):
        out[k] = offsets[min(k, offsets.shape[0] - 1)]
    return out


@njit(cache=True, nogil=True)
def line_up_across(images, start, offsets, size, steps, lines, out):
    """The same transposed: `out` is (panels, positions, lanes), lanes run over k.

    `lines` (1, k, lanes) is room for whole vectors of k, with a vector after it.
    """
    runs = np.empty((LANES_32, 2), np.int64)
    taps, depth = offsets.shape[0], out.shape[1]
    whole = depth - depth % LANES_32
    starts = np.zeros(1, np.int64)
    _turn(
        images, start, _whole(offsets), size, steps, 0, whole // LANES_32, lines, runs, starts, taps, depth,
        out.ctypes.data,
    )  # fmt: skip
    _line_up(images, start, offsets, size, steps, whole, 1, lines, lines.shape[1], runs)
    for p in range(out.shape[0]):
        for lane in range(LANES_32):
            k = p * LANES_32 + lane
            if k >= taps:
                out[p, :, lane] = np.float32(0.0)
            else:
                for j in range(whole, depth):
                    out[p, j, lane] = lines[0, k, j - whole]


@njit(nogil=True)
def _sum(
    a, a_bytes, starts, b, stride, c, width, depth, chunk, chunked, setting, pairs, panels, begins, from_zero
):  # fmt: skip
    """`numerics._kernels.tiles.gemm` of operands at addresses, for `pairs` of panels of columns.

    Panels of both operands have room for `stride` products; rows of the result are `width` apart. `begins`
    tells whether these are the first products of the sums.
    """
    step = chunk if chunked else min(depth, DEPTH)
    run = max(DEPTH // step, 1) * step
    none = np.uintp(0)
    for low in range(0, depth, run):
        high = min(low + run, depth)
        for p in range(0, 2 * pairs, panels):
            for t in range(starts.shape[0] - 1):
                i, height = starts[t], starts[t + 1] - starts[t]
                to = c + 4 * (i * width + p * LANES_32)
                for k in range(low, high, step):
                    n = min(step, high - k)
                    mode = ADD if chunked else RESUME
                    if begins and k == 0 and not (from_zero and chunked):
                        mode = REPLACE
                    pa = a + a_bytes * (i * stride + k * height)
                    pb = b + 4 * (p * stride + k) * LANES_32
                    _tile(
                        pa, pb, stride * LANES_32, to, width, to, width, n, mode, height, setting,
                        none, none, none,
                    )  # fmt: skip


@njit(cache=True, nogil=True)
def convolve(
    rows, starts, images, group_step, offsets, size, steps, out, chunk, setting, control, panels, from_zero,
    lines, sums, first, last,
):  # fmt: skip
    """Pairs of panels of positions ``first .. last - 1``, counted over all groups, of a convolution.

    `rows` is (groups, m k) packed, float32 or float64; `out` (n, groups, m, positions). `lines`
    (panels, k, lanes) is room for a block of windows, with a vector after it, and `sums` (m, panels * lanes)
    for its results. The others are as in `_line_up` and in `numerics._kernels.tiles.gemm`.
    """
    before = read_control()
    write_control(np.uint32(control))
    depth, heights = offsets.shape[0], starts[-1]
    positions = size[1] * size[2]
    whole = size[0] * positions
    vector = 2 * LANES_32
    per_group = -(-whole // vector)
    per_image = positions // vector if positions % vector == 0 else 0
    most = lines.shape[0] // 2
    runs = np.empty((LANES_32, 2), np.int64)
    chunked = chunk < depth
    pair = first
    while pair < last:
        g, at = pair // per_group, pair % per_group
        pairs = min(most, last - pair, per_group - at)
        if per_image:
            pairs = min(pairs, per_image - at % per_image)
        position = at * vector
        _line_up(images, g * group_step, offsets, size, steps, position, 2 * pairs, lines, depth, runs)
        left = rows.ctypes.data + g * rows.strides[0]
        if per_image:  # the results are in place
            block = out[position // positions, g]
            to, width = block.ctypes.data + 4 * (position % positions), positions
            if from_zero:
                block[:, position % positions : position % positions + pairs * vector] = np.float32(0.0)
        else:
            to, width = sums.ctypes.data, sums.shape[1]
            if from_zero:
                sums[:] = np.float32(0.0)
        _sum(
            left, rows.itemsize, starts, lines.ctypes.data, depth, to, width, depth, chunk, chunked, setting,
            pairs, panels, True, from_zero,
        )  # fmt: skip
        if not per_image:
            end = min(position + pairs * vector, whole)
            begin = position
            while begin < end:
                sample, x = begin // positions, begin % positions
                count = min(positions - x, end - begin)
                source = sums.ctypes.data + 4 * (begin - position)
                target = out.ctypes.data + 4 * (((sample * out.shape[1] + g) * heights) * positions + x)
                for i in range(heights):
                    _copy(source + 4 * i * sums.shape[1], target + 4 * i * positions, count)
                begin += count
        pair += pairs
    write_control(before)


@njit(cache=True, nogil=True)
def weight_gradient(
    errors, images, group_step, offsets, size, steps, out, chunk, setting, control, panels, from_zero,
    upright, starts, rows, wide_rows, columns, lines, sums, first_group, last_group, first_tap, last_tap,
):  # fmt: skip
    """Elements ``first_tap .. last_tap - 1`` of the kernels of some groups in a weight gradient.

    `errors` is flat, of (n, groups, m, positions); `out` (groups, m, k). The windows become columns, or if
    `upright` rows, with panels `starts`. `rows`, `wide_rows` (of float64 sums) and `columns` are room for a
    block of both operands, as many products as there are in ``columns.shape[1]``, whole vectors; `lines`
    (1, k or m, lanes) as in `_turn`, and with a vector after it; `sums` (rows, columns) for the results.
    """
    before = read_control()
    write_control(np.uint32(control))
    groups, m = out.shape[:2]
    positions = size[1] * size[2]
    depth, stride = size[0] * positions, columns.shape[1]
    taps = last_tap - first_tap
    chunked = chunk < depth
    block = stride - stride % chunk if chunked else stride
    runs = np.empty((LANES_32, 2), np.int64)
    window, channels = offsets[first_tap:last_tap], np.arange(m) * positions
    line, line_steps = (size[0], 1, positions), (groups * m * positions, positions)
    height, width = sums.shape
    none = np.zeros(1, np.int64)
    # Lanes that count for nothing must not hold numbers that take the processor long.
    lines[:] = np.float32(0.0)
    columns[-(-(m if upright else taps) // LANES_32) :] = np.float32(0.0)
    for g in range(first_group, last_group):
        if from_zero:
            sums[:] = np.float32(0.0)
        of_errors = g * m * positions
        for low in range(0, depth, block):
            count = min(block, depth - low)
            filled = -(-count // LANES_32)
            if upright:
                _turn(
                    images, g * group_step, window, size, steps, low, filled, lines, runs, starts, 0, stride,
                    rows.ctypes.data,
                )  # fmt: skip
                _turn(
                    errors, of_errors, _whole(channels), line, line_steps, low, filled, lines, runs, none, m,
                    stride, columns.ctypes.data,
                )  # fmt: skip
            else:
                _turn(
                    images, g * group_step, _whole(window), size, steps, low, filled, lines, runs, none, taps,
                    stride, columns.ctypes.data,
                )  # fmt: skip
                _turn(
                    errors, of_errors, channels, line, line_steps, low, filled, lines, runs, starts, 0,
                    stride, rows.ctypes.data,
                )  # fmt: skip
            left, left_bytes = rows.ctypes.data, 4
            if wide_rows.shape[0]:
                for i in range(height * stride):
                    wide_rows[i] = rows[i]
                left, left_bytes = wide_rows.ctypes.data, 8
            _sum(
                left, left_bytes, starts, columns.ctypes.data, stride, sums.ctypes.data, width, count, chunk,
                chunked, setting, columns.shape[0] // 2, panels, low == 0, from_zero,
            )  # fmt: skip
        for i in range(m):
            for k in range(taps):
                out[g, i, first_tap + k] = sums[k, i] if upright else sums[i, k]
    write_control(before)


@njit(cache=True, nogil=True)
def pack_groups(kernels, starts, out):
    """Pack (groups, m, k) into panels of rows, (groups, m k)."""
    for g in range(kernels.shape[0]):
        pack_rows(kernels[g], out[g], starts)
