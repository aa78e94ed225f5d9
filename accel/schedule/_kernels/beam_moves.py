"""States of the beam as rows of bits: what an operator needs and leaves, and what is still to pay.

A row of 64-bit words holds the executed operators, those that could run next, the resident tensors and
those stored off chip although nobody reads that copy for free, in this order: ``n`` and ``m`` bits
rounded up to words. Tensors that nothing reads any more have neither of their bits. Dropping a tensor is
paid at once: its later fetch, and its store where there is no copy yet.

Arguments that come in pairs ``x_at, x`` are lists by operator or tensor: those of ``i`` are
``x[x_at[i] : x_at[i + 1]]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_ONE = np.uint64(1)
_LOW = np.uint64(63)


@njit(cache=True, nogil=True)
def has(row, base, k):
    return (row[base + (k >> 6)] >> (np.uint64(k) & _LOW)) & _ONE != 0


@njit(cache=True, nogil=True)
def put(row, base, k):
    row[base + (k >> 6)] |= _ONE << (np.uint64(k) & _LOW)


@njit(cache=True, nogil=True)
def clear(row, base, k):
    row[base + (k >> 6)] &= ~(_ONE << (np.uint64(k) & _LOW))


@njit(cache=True, nogil=True)
def is_over(row, users_at, users, is_kept_on, v):
    """Whether nothing reads tensor `v` any more."""
    if is_kept_on[v]:
        return False
    for k in range(users_at[v], users_at[v + 1]):  # noqa: SIM110, loops compile best
        if not has(row, 0, users[k]):
            return False
    return True


@njit(cache=True, nogil=True)
def room_beside(
    row, i, room, overwritten_at, overwritten, writes_at, writes, users_at, users, is_kept_on, size
):
    """Units left for other tensors while operator `i` runs, which may take the block of a last-read input."""
    for k in range(overwritten_at[i], overwritten_at[i + 1]):
        v = overwritten[k]
        is_last = not is_kept_on[v]
        for u in range(users_at[v], users_at[v + 1]):
            if users[u] != i and not has(row, 0, users[u]):
                is_last = False
        if is_last:
            return room[i] + size[writes[writes_at[i]]]
    return room[i]


@njit(cache=True, nogil=True)
def execute(
    row, load, i, op_words, tensor_words, reads_at, reads, writes_at, writes, after_at, after,
    next_at, next_, users_at, users, is_kept_on, size,
):  # fmt: skip
    """Run operator `i`: returns the units resident afterwards."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    put(row, 0, i)
    clear(row, op_words, i)
    for k in range(next_at[i], next_at[i + 1]):
        is_ready = True
        for p in range(after_at[next_[k]], after_at[next_[k] + 1]):
            if not has(row, 0, after[p]):
                is_ready = False
                break
        if is_ready:
            put(row, op_words, next_[k])
    for is_write in range(2):
        start = writes_at[i] if is_write else reads_at[i]
        stop = writes_at[i + 1] if is_write else reads_at[i + 1]
        for k in range(start, stop):
            v = writes[k] if is_write else reads[k]
            was_there = has(row, resident, v)
            if is_over(row, users_at, users, is_kept_on, v):
                if was_there:
                    load -= size[v]
                    clear(row, resident, v)
                clear(row, stored, v)
            elif not was_there:
                load += size[v]
                put(row, resident, v)
    return load


@njit(cache=True, nogil=True)
def safe_move(
    row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at, writes,
    users_at, users, overwritten_at, overwritten, is_kept_on, has_copy, size, room,
):  # fmt: skip
    """Find an operator that can run at once: all is there, it fits, and it leaves no more behind; or -1.

    Proved to be no loss: what it leaves behind is no larger than any input that it reads last, one of
    which has no copy. Whatever a later plan does to those inputs it can do to the results at no higher
    price. The weaker rule, no more units than before, is only mostly right.
    """
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    for word in range(op_words):
        bits = row[op_words + word]
        while bits != np.uint64(0):
            low = bits & (~bits + _ONE)
            bits ^= low
            i = 64 * word
            while low > _ONE:
                low >>= _ONE
                i += 1
            units_read = 0
            units_ended = 0
            least_ended = np.int64(1) << 62
            is_any_without_copy = False
            is_there = True
            for k in range(reads_at[i], reads_at[i + 1]):
                v = reads[k]
                if not has(row, resident, v):
                    is_there = False
                    break
                units_read += size[v]
                is_last = not is_kept_on[v]
                for u in range(users_at[v], users_at[v + 1]):
                    if users[u] != i and not has(row, 0, users[u]):
                        is_last = False
                        break
                if is_last:
                    units_ended += size[v]
                    least_ended = min(least_ended, size[v])
                    if not has_copy[v] and not has(row, stored, v):
                        is_any_without_copy = True
            if not is_there:
                continue
            units_left = 0
            is_store_free = True
            for k in range(writes_at[i], writes_at[i + 1]):
                v = writes[k]
                if is_kept_on[v] or users_at[v] < users_at[v + 1]:
                    units_left += size[v]
                    is_store_free = is_store_free and has_copy[v]
            if units_left > 0:
                if is_proved:
                    if units_ended == 0 or units_left > least_ended:
                        continue
                    if not (is_any_without_copy or is_store_free):
                        continue
                elif units_left > units_ended:
                    continue
            others = load - units_read
            if others <= room_beside(
                row,
                i,
                room,
                overwritten_at,
                overwritten,
                writes_at,
                writes,
                users_at,
                users,
                is_kept_on,
                size,
            ):
                return i
    return -1


@njit(cache=True, nogil=True)
def still_to_pay(
    row, op_words, tensor_words, apart, users_at, users, apart_result, across, is_kept_on, has_copy, size
):
    """Units that are to pay from a state on, whatever comes.

    Resident tensors leave that wait for the result of an operator with no room for them. A tensor whose
    readers cannot follow each other leaves between them, or else the result of the earlier one does.
    """
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    total = 0
    for word in range(tensor_words):
        held = row[resident + word]
        v = 64 * word
        while held != np.uint64(0):
            while held & _ONE == np.uint64(0):
                held >>= _ONE
                v += 1
            held ^= _ONE
            for w in range(op_words):
                if across[v, w] & ~row[w] != np.uint64(0):
                    total += size[v]
                    if not has_copy[v] and not has(row, stored, v):
                        total += size[v]
                    break
    for v in apart:
        is_any = is_kept_on[v]
        leaving = 0
        either, most_either = 0, 0  # the cheaper of the two leaves each time
        result, most_result = 0, 0  # the result leaves each time
        is_leaving = False
        for k in range(users_at[v], users_at[v + 1]):
            r = apart_result[k]
            is_done = has(row, 0, users[k])
            if not is_done:
                is_any = True
            if r < 0:
                continue
            if not is_done:
                price = size[r] if has_copy[r] else 2 * size[r]
                either += min(size[v], price)
                most_either = max(most_either, min(size[v], price))
                result += price
                most_result = max(most_result, price)
            elif has(row, resident, r) and not is_leaving:
                is_leaving = True
                leaving = size[r] if has_copy[r] or has(row, stored, r) else 2 * size[r]
        if not is_any:
            continue
        if not is_kept_on[v]:  # nothing leaves after the last reader
            either -= most_either
            result -= most_result
        if is_leaving and has(row, resident, v):
            either += min(size[v], leaving)
            result += leaving
        if either > 0 and not has_copy[v] and not has(row, stored, v):
            either += size[v]
        total += min(either, result)
    return total


@njit(cache=True, nogil=True)
def price_of_foresight(row, op_words, tensor_words, is_apart, reads_at, reads, has_copy, size, room, by_room):
    """Price of making room now for the largest operator to come."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    for i in by_room:
        if has(row, 0, i):
            continue
        units = 0
        price = 0
        for v in range(size.size):
            if is_apart[v] or not has(row, resident, v):
                continue
            is_read = False
            for k in range(reads_at[i], reads_at[i + 1]):
                if reads[k] == v:
                    is_read = True
            if not is_read:
                units += size[v]
                price += size[v] if has_copy[v] or has(row, stored, v) else 2 * size[v]
        # An operator in place may have less than no room, as long as its result takes another's.
        if units <= max(room[i], 0):
            return 0
        return np.int64(price * ((units - room[i]) / units))
    return 0


@njit(cache=True, nogil=True)
def is_as_good(rival, rival_cost, state, cost, op_words, tensor_words, has_copy, size):
    """Whether `rival`, with the same operators executed, can become `state` at no higher price."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    budget = cost - rival_cost
    if budget < 0:
        return False
    for word in range(tensor_words):
        extra = rival[resident + word] & ~state[resident + word]
        unstored = (extra | (rival[resident + word] & state[stored + word])) & ~rival[stored + word]
        bits = extra | unstored
        v = 64 * word
        while bits != np.uint64(0):
            while bits & _ONE == np.uint64(0):
                bits >>= _ONE
                extra >>= _ONE
                unstored >>= _ONE
                v += 1
            if extra & _ONE != np.uint64(0):
                budget -= size[v]
            if unstored & _ONE != np.uint64(0) and not has_copy[v]:
                budget -= size[v]
            if budget < 0:
                return False
            bits ^= _ONE
    return True


@njit(cache=True, nogil=True)
def hashed(row, start, stop):
    found = np.uint64(1469598103934665603)
    for k in range(start, stop):
        found = (found ^ row[k]) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


@njit(cache=True, nogil=True)
def least_drops(items, prices, sizes, missing, most, most_steps, chosen, chosen_count, chosen_price):
    """Fill `chosen` with the `most` cheapest sets of at least `missing` units of which no tensor could stay.

    `sizes` fall, so the tensor that completes a set is its smallest. Returns the number of sets.
    """
    count = items.size
    left = np.zeros(count + 1, np.int64)
    for k in range(count - 1, -1, -1):
        left[k] = left[k + 1] + sizes[k]
    path = np.empty(count, np.int64)
    depth = 0
    units = 0
    price = 0
    k = 0
    found = 0
    steps = 0
    while True:
        steps += 1
        is_worth = k < count and units + left[k] >= missing
        if is_worth and found == most and price + 1 > chosen_price[found - 1]:
            is_worth = False
        if most_steps > 0 and steps > most_steps and found > 0:
            return found
        if is_worth:
            if units + sizes[k] >= missing:
                total = price + prices[k]
                if found < most or total < chosen_price[found - 1]:
                    at = found if found < most else most - 1
                    while at > 0 and chosen_price[at - 1] > total:
                        chosen_price[at] = chosen_price[at - 1]
                        chosen_count[at] = chosen_count[at - 1]
                        for c in range(chosen_count[at]):
                            chosen[at, c] = chosen[at - 1, c]
                        at -= 1
                    chosen_price[at] = total
                    chosen_count[at] = depth + 1
                    for c in range(depth):
                        chosen[at, c] = items[path[c]]
                    chosen[at, depth] = items[k]
                    found = min(found + 1, most)
                k += 1
                continue
            path[depth] = k
            depth += 1
            units += sizes[k]
            price += prices[k]
            k += 1
            continue
        if depth == 0:
            return found
        depth -= 1
        k = path[depth]
        units -= sizes[k]
        price -= prices[k]
        k += 1


@njit(cache=True, nogil=True)
def count_drops(sizes, missing, most):
    """Number of sets that `_least_drops` could list, at most `most`."""
    count = sizes.size
    left = np.zeros(count + 1, np.int64)
    for k in range(count - 1, -1, -1):
        left[k] = left[k + 1] + sizes[k]
    path = np.empty(count, np.int64)
    depth = 0
    units = 0
    k = 0
    found = 0
    while True:
        if k < count and units + left[k] >= missing:
            if units + sizes[k] >= missing:
                found += 1
                if found == most:
                    return found
                k += 1
                continue
            path[depth] = k
            depth += 1
            units += sizes[k]
            k += 1
            continue
        if depth == 0:
            return found
        depth -= 1
        k = path[depth]
        units -= sizes[k]
        k += 1
