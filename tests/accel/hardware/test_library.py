"""A user's own tables: they replace ours, the result says so, and a wrong file is one clear line."""

import math
import pickle
import subprocess
import sys

import pytest

from accel.hardware import library as library_module
from accel.hardware.library import DEFAULT, SECTIONS, Library, LibraryError
from accel.hardware.offchip import offchip_memory
from accel.hardware.overrides import unused_entries
from accel.hardware.register import register_cost
from accel.hardware.sram import sram_cost, sram_nodes, sram_range
from accel.hardware.technology import logic_scale
from accel.hardware.vector import lane_cost

UNITS = (
    'units = {size = "KiB", width = "byte", read = "fJ", write = "nJ", '
    'area = "um2", leakage = "uW", access = "ps"}'
)
ROWS = (
    "rows = [[1, 1, 100, 2e-4, 500, 10, 300], [1, 4, 200, 4e-4, 500, 10, 300], "
    "[4, 1, 200, 4e-4, 2000, 40, 600], [4, 4, 400, 8e-4, 2000, 40, 600]]"
)
SRAM = f'[sram]\nnode_nm = 12\ncells = "lop"\n{UNITS}\n{ROWS}\n'
CELL = (
    '[[cell]]\ncell = "e4m3 x e4m3 + e6m9"\nnode_nm = 12\narea_um2 = 61\nenergy_pj = 0.09\ndelay_ns = 0.8\n'
)


@pytest.fixture
def written(tmp_path):
    """Return a function that reads a file with the given text."""

    def read(text, name="foundry.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return Library.from_toml(path)

    return read


def test_a_constant_of_a_memory_is_replaced_and_the_others_stay(written):
    library = written('name = "foundry X"\n[offchip.lpddr4]\npj_per_bit = 6.5\n')
    memory, ours = offchip_memory("LPDDR4", library=library), offchip_memory("LPDDR4")
    assert (memory.pj_per_bit, memory.source) == (6.5, "foundry X")
    assert (memory.bandwidth_gb_s, memory.unit) == (ours.bandwidth_gb_s, ours.unit)
    assert offchip_memory("HBM2", library=library) == offchip_memory("HBM2")
    assert offchip_memory("LPDDR4").pj_per_bit == 8.0
    assert (library.name, library.replaced) == ("foundry X", ("offchip.LPDDR4.pj_per_bit",))


def test_a_recalled_energy_is_no_longer_recalled_once_the_user_gives_it(written):
    library = written("[offchip.DDR4]\npj_per_bit = 18\n")
    assert not offchip_memory("DDR4", library=library).recalled
    bandwidth = written("[offchip.DDR4]\nbandwidth_gb_s = 19.2\n")
    memory = offchip_memory("DDR4", library=bandwidth)
    assert (memory.recalled, memory.bandwidth_gb_s, memory.unit) == (True, 19.2, "one unit")


def test_a_memory_of_ones_own_is_added(written):
    text = (
        '[offchip.MY_DDR]\npj_per_bit = 12\nbandwidth_gb_s = 25.6\nunit = "one channel"\nsource = "sheet 7"\n'
    )
    memory = offchip_memory("my_ddr", library=written(text))
    assert (memory.pj_per_bit, memory.bandwidth_gb_s, memory.unit) == (12, 25.6, "one channel")
    assert (memory.source, memory.bandwidth_source, memory.recalled) == ("sheet 7", "foundry.toml", False)
    with pytest.raises(ValueError, match="offchip must be one of"):
        offchip_memory("MY_DDR")


def test_a_table_of_memories_is_converted_to_our_units(written):
    library = written(SRAM)
    cost = sram_cost(4096, 32, 12, library=library)
    assert (cost.read_pj, cost.write_pj) == (pytest.approx(0.4), pytest.approx(0.8))
    assert (cost.area_um2, cost.leakage_mw) == (pytest.approx(2000), pytest.approx(0.04))
    assert cost.access_ns == pytest.approx(0.6)
    assert not cost.scaled
    assert sram_range(12, library=library) == ((1024, 4096), (8, 32))
    assert sram_cost(2048, 16, 12, library=library).read_pj == pytest.approx(0.2)  # both ways half way
    assert library.replaced == ("sram 12 nm lop",)


def test_the_built_in_tables_beside_a_users_give_what_they_gave(written):
    library = written(SRAM.replace("12", "45", 1))
    for node, cells in ((45, "hp"), (32, "lop"), (22, "lop")):
        assert sram_cost(65536, 32, node, cells, library=library) == sram_cost(65536, 32, node, cells)
    assert sram_cost(4096, 32, 45, library=library).read_pj == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"size_bytes of an SRAM must be in 1024\.\.4096, got 65536"):
        sram_cost(65536, 32, 45, library=library)


def test_a_node_beside_a_users_table_is_scaled_from_it_or_interpolated(written):
    library = written(SRAM)
    at12, at7 = sram_cost(4096, 32, 12, library=library), sram_cost(4096, 32, 7, library=library)
    assert at7.read_pj / at12.read_pj == pytest.approx(math.sqrt(7 / 12))
    assert at7.scaled
    assert sram_nodes(16, "lop", library=library) == (12, 22)
    assert sram_nodes(16, "hp", library=library) == (22,)


def test_the_ends_of_a_users_table_are_in_its_range(written):
    rows = "rows = [" + ",".join(f"[{s}, {w}, 1, 1, 1, 1, 1]" for s in (1000, 7777) for w in (13, 39)) + "]"
    library = written(
        SRAM.replace(ROWS, rows).replace('"KiB"', '"byte"').replace('width = "byte"', 'width = "bit"')
    )
    assert sram_range(12, library=library) == ((1000, 7777), (13, 39))
    for size, width in ((1000, 13), (7777, 39), (1000, 39)):
        assert sram_cost(size, width, 12, library=library).read_pj == pytest.approx(1e-3)


def test_cells_of_ones_own_are_told_apart(written):
    library = written(SRAM.replace('"lop"', '"dense"'))
    assert sram_cost(1024, 8, 12, "dense", library=library).read_pj == pytest.approx(0.1)
    with pytest.raises(ValueError, match="cells must be one of dense, hp, lop, lstp; got 'sparse'"):
        sram_cost(1024, 8, 12, "sparse", library=library)
    with pytest.raises(
        ValueError, match=r"must be in 7\.\.12, got 45 \(dense cells, tables of foundry\.toml\)"
    ):
        sram_cost(1024, 8, 45, "dense", library=library)


def test_a_measured_cell_is_found_by_its_canonical_text_and_node(written):
    library = written(CELL)
    cell = library.cell("e4m3fn x e4m3fn + e6m9", 12)
    assert (cell["area_um2"], cell["energy_pj"], cell["delay_ns"]) == (61, 0.09, 0.8)
    assert cell["source"] == "foundry.toml"
    assert library.cell("e4m3fn x e4m3fn + e6m9", 16) is None
    assert library.cell("e4m3fn x e5m2 + e6m9", 12) is None
    assert library.replaced == ("cell e4m3fn x e4m3fn + e6m9 at 12 nm",)


def test_a_register_and_a_lane_of_another_node_are_scaled_from_there(written):
    library = written("[register]\nnode_nm = 16\narea_um2 = 1.0\nenergy_pj = 0.002\n")
    at16, at45 = register_cost(16, library=library), register_cost(45, library=library)
    assert (at16.area_um2, at16.energy_pj, at16.scaled) == (1.0, 0.002, False)
    assert at45.area_um2 == pytest.approx(1 / 0.19)
    assert at45.energy_pj == pytest.approx(0.002 / 0.1873, rel=1e-3)
    library = written("[vector.energy_pj]\nfp32_add = 0.7\n")
    assert (lane_cost(library=library).add_pj, lane_cost(library=library).multiply_pj) == (0.7, 3.7)


def test_a_node_and_a_voltage_of_ones_own(written):
    library = written(
        "[technology]\nvoltage_v = 0.8\n"
        "[technology.nodes]\n12 = {area_factor = 0.13, a2 = 0.25, a1 = -0.1, a0 = 0.02}\n"
    )
    scale = logic_scale(12, library=library)
    assert scale.area == pytest.approx(0.13)
    assert scale.energy == pytest.approx((0.25 * 0.64 - 0.08 + 0.02) / 0.84433, rel=1e-4)
    assert logic_scale(45, library=library).energy == pytest.approx(0.69302 / 0.84433, rel=1e-4)
    assert library.replaced == (
        "technology.voltage_v",
        *(f"technology.nodes.12.{name}" for name in ("area_factor", "a2", "a1", "a0")),
    )


def test_a_coefficient_of_a_law_is_replaced_in_its_section(written):
    ours = DEFAULT.section("mac")
    (group, law) = next((key, value) for key, value in ours["float"].items() if isinstance(value, dict))
    first, *others = law
    section = written(f"[mac.float.{group}]\n{first} = 1.25\n").section("mac")
    assert section["float"][group][first] == 1.25
    assert all(section["float"][group][other] == law[other] for other in others)
    assert ours["float"][group][first] != 1.25


def test_libraries_are_equal_by_content_and_caches_keep_them_apart(written):
    one, other = (written(f"[offchip.HBM2]\npj_per_bit = {value}\n") for value in (5.0, 6.0))
    same = written("[offchip.HBM2]\npj_per_bit = 5\n")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    energies = [offchip_memory("HBM2", library=library).pj_per_bit for library in (one, other, same, DEFAULT)]
    assert energies == [5.0, 6.0, 5.0, 3.9]


def test_a_library_travels_to_another_process(written):
    for library in (DEFAULT, written(SRAM)):
        assert pickle.loads(pickle.dumps(library)) == library
    assert sram_cost(65536, 32, library=pickle.loads(pickle.dumps(DEFAULT))) == sram_cost(65536, 32)


def test_the_example_of_the_documentation_is_a_file_that_is_taken(written):
    text = library_module.__doc__.split("::\n", 1)[1].split("\nWhat a file")[0]
    rows = "[1, 32, 310, 290, 800, 21, 240],\n"
    more = (
        "[1, 64, 420, 400, 900, 22, 240], [4, 32, 500, 480, 3000, 80, 300], [4, 64, 700, 660, 3100, 81, 300]"
    )
    library = written(text.replace(rows, rows + more))
    assert library.name == "foundry X, 12 nm"
    assert sram_cost(1024, 32, 12, library=library).read_pj == pytest.approx(0.31)
    assert {entry.split(".")[0].split(" ")[0] for entry in library.replaced} == {*SECTIONS, "cell"}


def test_entries_that_a_design_does_not_touch_are_named(written):
    text = SRAM + CELL + "[offchip.HBM2]\npj_per_bit = 5\n[technology.nodes]\n16 = {area_factor = 0.2}\n"
    library = written(text + "[register]\narea_um2 = 4\n")
    cell = "e4m3fn x e4m3fn + e6m9"
    here = {"node_nm": 12, "cells": "lop", "offchip": "hbm2", "mac": cell}
    assert unused_entries(library, **here) == ("technology.nodes.16.area_factor",)
    assert unused_entries(library, **{**here, "node_nm": 45, "offchip": "DDR4"}) == (
        "offchip.HBM2.pj_per_bit",
        "sram 12 nm lop",
        "cell e4m3fn x e4m3fn + e6m9 at 12 nm",
        "technology.nodes.16.area_factor",
    )
    at16 = unused_entries(library, **{**here, "node_nm": 16})
    assert "technology.nodes.16.area_factor" not in at16
    assert "sram 12 nm lop" not in at16  # 16 nm lies between 12 and 22


WRONG = [
    ("colour = 1", r"foundry\.toml: colour is not a section; sections are name, offchip, sram, cell"),
    ("", r"foundry\.toml: replaces nothing; sections are offchip, sram"),
    ("name = 'x'", r"foundry\.toml: replaces nothing"),
    ("name = 3\n[offchip.HBM2]\npj_per_bit = 5", r"name must be a line of text, got 3"),
    ("= 3", r"foundry\.toml: not TOML"),
    ("offchip = 3", r"offchip must be a table, got 3"),
    ("[offchip]", r"offchip is empty"),
    ("[offchip.HBM2]", r"offchip\.HBM2 is empty; allowed are pj_per_bit"),
    (
        "[offchip.HBM2]\nnj_per_bit = 5",
        r"offchip\.HBM2\.nj_per_bit is not a key; allowed are pj_per_bit, bandwidth",
    ),
    ("[offchip.HBM2]\npj_per_bit = '5 pJ'", r"offchip\.HBM2\.pj_per_bit must be a finite number, got '5 pJ'"),
    ("[offchip.HBM2]\npj_per_bit = -5", r"offchip\.HBM2\.pj_per_bit must be above 0, got -5"),
    ("[offchip.HBM2]\npj_per_bit = nan", r"pj_per_bit must be a finite number, got nan"),
    (f"[offchip.HBM2]\npj_per_bit = 1{'0' * 400}", r"pj_per_bit must be a finite number, got 1000"),
    ("[offchip.' HBM2']\npj_per_bit = 1", r"offchip\. HBM2 must be a name without spaces around it"),
    ('"a\\nb" = 1', r"foundry\.toml: 'a\\nb' is not a section"),
    ("[mac]\nvoltage_v = 0", r"mac\.voltage_v must be above 0, got 0"),
    ("[offchip.HBM2]\npj_per_bit = true", r"pj_per_bit must be a finite number, got True"),
    ("[offchip.HBM2]\nsource = 'x'", r"offchip\.HBM2\.source needs pj_per_bit beside it"),
    ("[offchip.HBM2]\npj_per_bit = 5\nunit = 'one'", r"offchip\.HBM2\.unit needs bandwidth_gb_s beside it"),
    ("[offchip.NEW]\npj_per_bit = 5", r"offchip\.NEW\.bandwidth_gb_s is missing"),
    ("[offchip.a]\npj_per_bit=1\nbandwidth_gb_s=1\n[offchip.A]\npj_per_bit=1", r"offchip\.A is given twice"),
    (SRAM.replace('"nJ"', '"W"'), r"sram\.units\.write must be one of pJ, fJ, nJ; got 'W'"),
    (SRAM.replace('write = "nJ", ', ""), r"sram\.units\.write is missing"),
    (SRAM.replace(UNITS, ""), r"sram\.units is missing"),
    (
        SRAM.replace("write =", "power ="),
        r"sram\.units\.power is not a key; allowed are size, width, read, write",
    ),
    (SRAM.replace('cells = "lop"', "cells = 3"), r"sram\.cells must be a line of text, got 3"),
    (
        SRAM.replace("node_nm = 12", "node_nm = 12.5"),
        r"sram\.node_nm must be a whole number of at least 1, got 12\.5",
    ),
    (SRAM + "colour = 1", r"sram\.colour is not a key; allowed are node_nm, cells, units, rows, source"),
    (SRAM.replace("[1, 1, 100, ", "[1, 1, "), r"sram\.rows\[0\] must be a list of size, width, read, write"),
    (SRAM.replace("[1, 1, 100, ", "[1, 1, 0, "), r"sram\.rows\[0\] must be above 0, got 0"),
    (SRAM.replace("[1, 1, 100, ", "[1, 1, 'x', "), r"sram\.rows\[0\] must be a finite number, got 'x'"),
    (SRAM.replace("[4, 4, 400", "[4, 1, 400"), r"sram\.rows\[3\] is a second row of 4096 bytes x 8 bits"),
    (SRAM.replace("[4, 4, 400", "[4, 4, 40"), r"sram\.rows\[3\] has read 5 times lower than row \d"),
    (
        SRAM.replace("2000, 40, 600]]", "2000, 40, 100]]"),
        r"sram\.rows\[3\] has access 3 times lower than row 1",
    ),
    (
        SRAM.replace("[4, ", "[1, ").replace("[1, 4, 400", "[1, 8, 400"),
        r"sram\.rows must have at least two sizes",
    ),
    (SRAM.split("rows")[0] + "rows = []", r"sram\.rows must be an array with at least one entry"),
    (SRAM.replace("[sram]", "[[sram]]") * 2, r"sram\[1\] is a second table of lop cells at 12 nm"),
    ("[cell]\ncell = 'x'", r"cell must be an array with at least one entry"),
    (CELL.replace("delay_ns = 0.8\n", ""), r"cell\[0\]\.delay_ns is missing"),
    (
        CELL.replace("area_um2", "area_mm2"),
        r"cell\[0\]\.area_mm2 is not a key; allowed are cell, node_nm, area_um2",
    ),
    (CELL.replace("0.09", "0"), r"cell\[0\]\.energy_pj must be above 0, got 0"),
    (CELL.replace("e4m3 x", "e4m3 /"), r"cell\[0\]\.cell is not a cell: .*e4m3 / e4m3 \+ e6m9"),
    (
        CELL + CELL.replace("e4m3 x e4m3", "e4m3fn x e4m3fn"),
        r"cell\[1\] is a second measurement of e4m3fn x e4m3fn",
    ),
    ("[register]", r"register is empty"),
    ("[register]\narea = 3", r"register\.area is not a key; allowed are node_nm, area_um2, energy_pj"),
    ("[register]\narea_um2 = -3", r"register\.area_um2 must be at least 0, got -3"),
    ("[register]\nnode_nm = 12\narea_um2 = 3", r"register\.energy_pj is missing: it is needed at 12 nm too"),
    (
        "[vector]\nnode_nm = 12\nenergy_pj.fp32_add = 3",
        r"vector\.energy_pj\.fp32_multiply is missing: it is needed",
    ),
    ("[vector]\nenergy_pj = 3", r"vector\.energy_pj must be a table, got 3"),
    ("[mac]\nnode_nm = 12", r"mac\.node_nm is not a key; allowed are"),
    ("[mac.register]\narea_um2 = 1", r"mac\.register is not a key; allowed are"),
    ("[technology]\nvoltage_v = 2", r"technology\.voltage_v must be in 0\.6\.\.1\.1, got 2"),
    ("[technology.nodes]\n12 = {a2 = 1}", r"technology\.nodes\.12\.area_factor is missing"),
    ("[technology.nodes]\n'012' = {a2 = 1}", r"technology\.nodes\.012 must be a node in whole nanometres"),
    ("[technology.nodes]\n16 = {}", r"technology\.nodes\.16 is empty"),
    (
        "[technology.nodes]\n16 = {a0 = -1}",
        r"technology\.nodes\.16 must have an energy .* above 0 that rises",
    ),
    (
        "[technology.nodes]\n16 = {area_factor = 0}",
        r"technology\.nodes\.16\.area_factor must be above 0, got 0",
    ),
    (
        "[technology.sram]\nenergy_exponent = -1",
        r"technology\.sram\.energy_exponent must be at least 0, got -1",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_file_is_refused_in_one_line_with_the_key_and_what_is_allowed(written, text, message):
    with pytest.raises(LibraryError, match=message) as refused:
        written(text)
    assert str(refused.value).startswith("foundry.toml: ")
    assert "\n" not in str(refused.value)


def test_a_table_with_too_few_of_its_points_is_refused(written):
    rows = "rows = [" + ",".join(f"[{2**i}, {2**i}, {i + 1}, 1, 1, 1, 1]" for i in range(4)) + "]"
    with pytest.raises(
        LibraryError, match=r"at least half of the 16 points of its 4 sizes and 4 widths, got 4"
    ):
        written(SRAM.replace(ROWS, rows))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(LibraryError, match=r"absent\.toml: No such file"):
        Library.from_toml(tmp_path / "absent.toml")


def test_every_section_of_the_package_is_read_and_no_other():
    for name in SECTIONS:
        assert DEFAULT.section(name)
    with pytest.raises(
        ValueError, match="section must be one of mac, offchip, register, sram, technology, vector"
    ):
        DEFAULT.section("dram")


def test_no_table_is_read_before_it_is_needed():
    code = (
        "import tomllib; read = []; old = tomllib.loads;"
        "tomllib.loads = lambda text: read.append(text) or old(text);"
        "import accel.hardware.library, accel.hardware.sram, accel.hardware.vector, accel.hardware.register;"
        "print(len(read))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"


def test_a_section_that_the_user_leaves_alone_is_ours(written):
    library = written("[register]\nenergy_pj = 0.004\n")
    assert library.section("register") == {**DEFAULT.section("register"), "energy_pj": 0.004}
    assert library.section("vector") is DEFAULT.section("vector")
