"""The rules of :mod:`accel.mapping.nest` for many nests of one problem at once.

Loops are slots, outermost first: slot ``s`` of nest ``i`` runs loop ``loops[i, s]`` for
``turns[i, s]`` turns in level ``slot_level[s]``. A slot that a nest does not use has 1 turn.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _words(coefficients, tile):
    """Words of the box that loops of `tile` turns touch."""
    words = 1
    for rank in range(coefficients.shape[0]):
        extent = 1
        for loop in range(tile.shape[0]):
            extent += coefficients[rank, loop] * (tile[loop] - 1)
        words *= extent
    return words


@njit(cache=True)
def _received(coefficients, tile, loops, turns, slot_spatial, slots, halo_kept, reach, back, pace):
    """Words that one instance receives, over the temporal loops in the first `slots` slots."""
    ranks = coefficients.shape[0]
    whole = _words(coefficients, tile)
    outside = 1
    for slot in range(slots):
        if not slot_spatial[slot]:
            outside *= turns[slot]
    reach[:] = tile
    back[:] = 0
    total, new, first = whole, whole, True
    for slot in range(slots - 1, -1, -1):
        loop, count = loops[slot], turns[slot]
        if count > 1 and not slot_spatial[slot]:
            outside //= count
            same = True
            kept = 1
            for rank in range(ranks):
                move = coefficients[rank, loop] * reach[loop]
                step = move - back[rank]
                back[rank] += move * (count - 1)
                if first:
                    pace[rank] = step
                    extent = 1
                    for other in range(tile.shape[0]):
                        extent += coefficients[rank, other] * (tile[other] - 1)
                    kept *= max(0, extent - step)
                    same = same and step == 0
                else:
                    same = same and step == pace[rank]
            if first:
                # The innermost loop sets the pace; if it does not move the tile nothing is new.
                if same:
                    new = 0
                elif halo_kept:
                    new = whole - kept
                first, same = False, True
            total += outside * (count - 1) * (new if same else whole)
        reach[loop] *= count
    return total


@njit(cache=True)
def _places(coefficients, loops, turns, slot_spatial, begin, end, reach):
    """Units with words of their own below the level in slots `begin` to `end` - 1.

    `reach` holds the turns inside the level.
    """
    places = 1
    fanout = 1
    for slot in range(begin, end):
        if slot_spatial[slot]:
            fanout *= turns[slot]
    if fanout == 1:
        return places
    steps = np.empty(end - begin, np.int64)
    counts = np.empty(end - begin, np.int64)
    for rank in range(coefficients.shape[0]):
        used, far = 0, 0
        inside = reach.copy()
        for slot in range(end - 1, begin - 1, -1):
            if slot_spatial[slot] and turns[slot] > 1:
                step = coefficients[rank, loops[slot]] * inside[loops[slot]]
                inside[loops[slot]] *= turns[slot]
                if step > 0:
                    steps[used], counts[used] = step, turns[slot]
                    far += step * (turns[slot] - 1)
                    used += 1
        if used == 1:
            places *= counts[0]
        elif used > 1:
            met = np.zeros(far + 1, np.bool_)
            met[0] = True
            top = 0
            for i in range(used):
                # Downwards, so that what this loop adds is not taken for what was there.
                for offset in range(top, -1, -1):
                    if met[offset]:
                        for turn in range(1, counts[i]):
                            met[offset + turn * steps[i]] = True
                top += steps[i] * (counts[i] - 1)
            places *= met.sum()
    return places


@njit(cache=True)
def count_nests(
    loops,
    turns,
    slot_level,
    slot_spatial,
    coefficients,
    keeps,
    halo_kept,
    moved,
    tile_words,
    instances,
    cycles,
):
    """Fill `moved` (nests, 4, levels, tensors): reads, fills, updates, drains; and the arrays after it.

    `coefficients` (tensors, ranks, loops) has the output last and zeros where a tensor has fewer
    ranks; `keeps` (levels, tensors). `instances` (nests, levels + 1) ends with the multipliers.
    """
    nests, slots = loops.shape
    levels, tensors = keeps.shape
    ranks, dims = coefficients.shape[1], coefficients.shape[2]
    begins = np.zeros(levels + 1, np.int64)
    for slot in range(slots):
        begins[slot_level[slot] + 1] = slot + 1
    for level in range(levels):
        begins[level + 1] = max(begins[level + 1], begins[level])
    tiles = np.empty((levels + 1, dims), np.int64)
    seen = np.empty((levels + 1, dims), np.int64)
    reach = np.empty(dims, np.int64)
    back = np.empty(ranks, np.int64)
    pace = np.empty(ranks, np.int64)
    for nest in range(nests):
        tiles[levels] = 1
        for level in range(levels - 1, -1, -1):
            tiles[level] = tiles[level + 1]
            for slot in range(begins[level], begins[level + 1]):
                tiles[level, loops[nest, slot]] *= turns[nest, slot]
        seen[0] = tiles[0]
        instances[nest, 0] = 1
        cycles[nest] = 1
        for level in range(levels):
            seen[level + 1] = seen[level]
            instances[nest, level + 1] = instances[nest, level]
            for slot in range(begins[level], begins[level + 1]):
                if slot_spatial[slot]:
                    seen[level + 1, loops[nest, slot]] //= turns[nest, slot]
                    instances[nest, level + 1] *= turns[nest, slot]
                else:
                    cycles[nest] *= turns[nest, slot]
        for tensor in range(tensors):
            mapped = coefficients[tensor]
            summed = tensor == tensors - 1
            theirs = cycles[nest]  # a multiplier takes a word each time
            places = 1
            for level in range(levels - 1, -1, -1):
                reach[:] = tiles[level + 1]
                places *= _places(
                    mapped, loops[nest], turns[nest], slot_spatial, begins[level], begins[level + 1], reach
                )
                if not keeps[level, tensor]:
                    continue
                copies = instances[nest, level]
                sent = theirs * places * copies
                mine = _received(
                    mapped,
                    tiles[level],
                    loops[nest],
                    turns[nest],
                    slot_spatial,
                    begins[level],
                    halo_kept,
                    reach,
                    back,
                    pace,
                )
                arrived = mine * copies if level > 0 else 0
                begun = _words(mapped, seen[level]) * copies if summed else 0
                moved[nest, 0, level, tensor] = sent - begun
                moved[nest, 1, level, tensor] = arrived - begun if level > 0 else 0
                moved[nest, 2, level, tensor] = sent if summed else 0
                moved[nest, 3, level, tensor] = arrived if summed else 0
                tile_words[nest, level, tensor] = _words(mapped, tiles[level])
                theirs, places = mine, 1
