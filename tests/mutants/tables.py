"""Which tests must notice the mutants of a kernel module, and which mutants change no result."""

from llvmlite import binding


def edges(*claims):
    """Single tests of kernels called directly: little is compiled for them."""
    return [f"test_edges.py::test_{claim}" for claim in claims]


#: Tests of each module under tests/numerics, the quickest and most telling first. They are those that a
#: plain `pytest` runs; the second list is for mutants that the first one lets pass.
TESTS: dict[str, tuple[list[str], list[str]]] = {
    "rounding": (
        [
            *edges(
                "one_rounding_is_that_of_rationals_at_every_edge_of_the_format",
                "a_sum_to_odd_is_exact_or_the_odd_one_of_its_neighbours",
                "a_stochastic_sum_is_that_of_rationals_at_every_edge_of_the_format",
            ),
            "test_axpy.py",
            "test_cast_stochastic.py",
        ],
        ["test_cast.py"],
    ),
    "tiles": (
        [
            *edges(
                "a_tile_sends_the_ties_of_a_register_little_narrower_than_float32_to_even",
                "tiles_decide_ordinary_sums_themselves",
            ),
            "test_tiles.py",
            *edges(
                "a_word_that_does_not_decide_a_sum_of_either_sign_in_any_lane_takes_more_digits",
                "a_stochastic_sum_that_leaves_the_range_in_a_later_run_of_a_tile_overflows",
            ),
        ],
        ["test_certificate.py", "test_accumulate_stochastic.py"],
    ),
    "loops": (
        [
            *edges(
                "plain_loops_give_the_rational_sums_in_blocks_of_columns",
                "plain_loops_use_the_word_of_an_element_and_a_number",
            )
        ],
        ["test_accumulate_stochastic.py", "test_tiles.py"],
    ),
    "windows": (["test_convolution.py"], []),
    "batches": (["test_matmul.py"], ["test_tiles.py"]),
    "statistics": (["torch/test_statistics.py"], []),
    "casts": (
        [
            *edges(
                "loops_round_to_nearest_even_at_every_edge_of_the_format",
                "loops_round_stochastically_at_every_edge_of_the_format",
            ),
            "test_cast_paths.py",
            "test_axpy.py",
        ],
        ["test_cast_stochastic.py"],
    ),
    "arrays": (
        [
            "test_cast_paths.py",
            *edges(
                "vectors_of_which_no_lane_is_decided_take_more_digits",
                "arrays_beyond_the_caches_are_rounded_as_their_parts",
                "sixteen_random_bits_decide_nearly_all_roundings_of_a_cast",
            ),
        ],
        ["test_cast_stochastic.py"],
    ),
    "fused_tiles": (["test_fused_tiles.py"], ["test_fused.py"]),
    "fused": (["test_fused.py"], ["test_fused_tiles.py"]),
    "ordered": (
        [
            *edges(
                "the_exponent_of_a_float64_is_the_one_of_frexp",
                "a_report_sees_shifts_between_the_ends_of_float64",
            ),
            "test_accumulate_orders.py",
        ],
        ["test_kulisch.py", "test_fused.py"],
    ),
    "random": (
        [*edges("halves_are_the_first_digits_of_eight_elements_to_a_counter"), "test_cast_stochastic.py"],
        ["test_accumulate_stochastic.py"],
    ),
    "kulisch": ([*edges("a_register_is_a_float64_and_a_rest_to_odd"), "test_kulisch.py"], []),
    "facts": (
        [
            *edges(
                "the_facts_of_an_operand_are_those_of_its_integers",
                "the_bounds_of_float32_patterns_are_those_of_integers",
            )
        ],
        ["test_certificate.py", "test_accumulate.py"],
    ),
    "panels": (
        [
            *edges(
                "rows_are_packed_in_panels_of_height_then_four_two_one",
                "columns_are_packed_in_pairs_of_panels_of_a_vector_padded_with_zeros",
            )
        ],
        ["test_tiles.py", "test_fused_tiles.py"],
    ),
    "integer": (["test_integer.py"], []),
    "coding": (
        ["test_codes.py", *edges("the_largest_magnitude_is_told_to_its_last_bit_whatever_its_sign")],
        [],
    ),
    "blocks": (
        [
            *edges("a_quotient_to_odd_is_exact_or_the_odd_one_of_its_neighbours"),
            "test_block.py",
            "test_packed_blocks.py",
        ],
        [],
    ),
    "packing": (
        [
            *edges(
                "blocks_are_decoded_up_to_the_last_element_and_no_further",
                "codes_are_packed_up_to_the_last_bit_and_no_further",
            ),
            "test_packed.py",
        ],
        ["test_packed_blocks.py"],
    ),
    "vectors": (["test_tiles.py"], ["test_fused_tiles.py", "test_cast_paths.py"]),
    "roundings": (
        [
            *edges(
                "a_tile_sends_the_ties_of_a_register_little_narrower_than_float32_to_even",
                "opposite_products_add_up_to_plus_zero_in_every_direction",
            ),
            "test_cast_paths.py",
            "test_tiles.py",
            *edges(
                "a_word_that_does_not_decide_a_sum_of_either_sign_in_any_lane_takes_more_digits",
                "a_stochastic_sum_that_leaves_the_range_in_a_later_run_of_a_tile_overflows",
            ),
        ],
        ["test_certificate.py"],
    ),
}


#: Faults that change no result: (module, what of `Mutant.text` they contain as a regular expression, why).
EQUIVALENT: tuple[tuple[str, str, str], ...] = (
    # Sizes that are chosen for speed.
    (
        "tiles",
        r"^module \| (DEPTH|CHECKED_DEPTH|_HEIGHTS\b.*|if REGISTERS .*) ",
        "any height and depth will do",
    ),
    ("arrays", r"^module \| (BLOCK|GROUPS|PAST_CACHES) = ", "any size will do"),
    ("casts", r"^module \| (BLOCK|GROUP) = ", "any size will do"),
    ("integer", r"^module \| _BLOCK = ", "any size will do"),
    ("rounding", r"^module \| ENDLESS = .* \| (30 -> |1 -> \(2\))", "more bits than any number has"),
    ("tiles", r"failed <= 8 \+ tried // 2.* \| (<= -> <|8 -> |2 -> |\+ -> -: 8|// -> )", "when to give up"),
    ("panels", r"^module \| _(DEPTH|ROWS) = ", "any size will do"),
    ("packing", r"^_groups \| return min.* \| >= -> >", "what no group takes is unpacked one by one"),
    ("packing", r"^pack_\w+ \| return union \| _put.* \| factor dropped", "codes are put down twice"),
    ("tiles", r"^gemm(_checked)? \| (step|run) = .* \| (min -> max|// -> \*)", "longer runs will do as well"),
    ("fused_tiles", r"^gemm \| run = .* \| (max -> min|// -> \*)", "longer runs will do as well"),
    ("vectors", r"^module \| REGISTERS = ", "any height of a tile will do"),
    # Where both choices are the same.
    (
        "tiles",
        r"^gemm_checked \| doubt = k > 0 and .* \| > -> >=",
        "no sum is large before the first product",
    ),
    (
        "roundings",
        r"Any.magnitude \| small = .* \| \"<\" -> '<='",
        "the lift of a number on the grid is exact",
    ),
    ("roundings", r"Any.magnitude \| lift = .* \| 0 -> \(1\)", "5e-324 changes no larger number"),
    ("roundings", r"Any64.round \| negative = .* \| \"<\" -> '<='", "a zero is on the grid"),
    ("facts", r"^unit_f32 \| .* \| 2150 -> ", "any exponent beyond those of float32 will do"),
    ("fused_tiles", r"^exponents \| exponent = .* \| > -> >=", "both are emin then"),
    ("fused_tiles", r"^_emit \| field = builder.lshr.* \| lshr -> ashr", "the sign is masked away after it"),
    ("panels", r"^pack_columns \| for start .* \| 0 -> \(-1\)", "row -1 is the last one, and packed anyway"),
    (
        "kulisch",
        r"^_register_value \| while limbs.* \| & -> \|",
        "128 bits from a leading zero on are enough",
    ),
    ("kulisch", r"^gemm_kulisch \| field = .* \| 1 -> ", "no format reaches down to subnormal float64"),
    ("ordered", r"^_tree \| while step < count.* \| < -> <=", "a step of all has no pair"),
    (
        "arrays",
        r"^round_stochastic \| if whole (>|<) .* \| (0 -> \(1\)|< -> <=)",
        "an empty part is rounded in vain",
    ),
    (
        "casts",
        r"^cast_nearest_even_f32 \| most = .* \| 127 -> \(126\)",
        "a value of that binade overflows anyway",
    ),
    (
        "windows",
        r"^weight_gradient \| columns\[-\(-\(m if upright",
        "lanes that count for nothing: their speed only",
    ),
    ("casts", r"^_round_block \| field = .* \| 1223 -> ", "far beyond every format"),
    ("casts", r"^cast_nearest_even_f32 \| field = .* -> \(0x7f800001", "a last bit that is set is in no tie"),
    ("loops", r"^module \| _EXPONENT_64 = .* -> \(0x7ff0000000000001", "a last bit that is set is in no tie"),
    ("vectors", r"^write_control.emit \| builder.store.* \| 0 -> \(-1\)", "there is one argument"),
    ("blocks", r"^round_nearest_even_f32 \| most = .* \| 0 -> \(1\)", "the least scale is that of zeros"),
    ("arrays", r"^_Randomly.round \| whole = .* \| lshr -> ashr", "numbers below 2**31 have no sign"),
    ("arrays", r"^_digits \| chains.append.* \| lshr -> ashr", "a counter has no sign"),
    ("arrays", r"^_digits \| builder.xor\(builder.lshr\(p.* \| lshr -> ashr", "no product sees upper halves"),
    ("rounding", r"^round_one \| if magnitude >= 2\.0\*\*200.* \| >= -> >", "2**200 overflows later as well"),
    (
        "casts",
        r"^cast_(any|undecided) \| out\[i\] = .* \| 0 -> ",
        "the number of an addition; a cast has none",
    ),
    ("casts", r"^cast_undecided \| for i .* -> \(group\)$", "decided elements are only rounded again"),
    (
        "casts",
        r"^axpy_(any|stochastic) \| .*round_sum.* \| 0 -> ",
        "the number of an addition; a cast has none",
    ),
    ("casts", r"^axpy_stochastic \| more = .* \| (> -> >=|16 -> \(15\))", "elements are only rounded again"),
    ("casts", r"^_round_block \| bits = 16 if .* \| 16 -> \(15\)", "the exact one takes more digits sooner"),
    ("casts", r"^cast_stochastic \| more = .* \| > -> >=", "elements are only rounded again"),
    ("casts", r"^cast_stochastic \| source, result = .* \| \+ -> -: first \+ count", "no end is looked at"),
    ("ordered", r"^round_counting \| elif .* \| < -> <=", "a power of two is on the format"),
    ("vectors", r"^Vectors.load_words .* \| 32 -> \(33\)", "to the same type nothing is widened"),
    ("blocks", r"^module \| _SPLIT = .* -> \(134217728\.0", "split at 27 bits as well"),
    (
        "blocks",
        r"^_exponent_of_scale \| .*most >= _INFINITY_64.* \| >= -> >",
        "its exponent is beyond 127 too",
    ),
    ("blocks", r"^round_nearest_even_f32 \| if emin .* \| < -> <=", "the other way has the same results"),
    (
        "blocks",
        r"^_quotient_to_odd \| away = .*residual > 0.0.* \| > -> >=",
        "an exact one stays",
    ),
    ("kulisch", r"^_register_value \| if sticky and rest % .* \| % -> //", "a rest of 1 or more is enough"),
    ("fused", r"largest\[j\] = -126 if .* \| (> -> >=|1000 -> )", "no addend is beyond 2**128"),
    ("coding", r"^encode_f(32|64) \| below = .* \| < -> <=", "the smallest normal number is twice the lift"),
    ("roundings", r"Random64.question \| .* \| \">\" -> '>='", "the exact kernel settles a doubt too many"),
    ("roundings", r"Any64.round \| negative = .* \| 0 -> \(-1\)", "a NaN of all ones is the only difference"),
    ("roundings", r"Any64.round \| last = .* \| lshr -> ashr", "a magnitude has no sign"),
)


#: Lines of `_Nearest` that make no instructions on this processor: see `vectors.HAS_ADDERS`.
_ADDERS = binding.get_host_cpu_name().startswith("znver")


UNUSED = r"self\.(up|down)\b" if _ADDERS else r"self\.lift\b"
