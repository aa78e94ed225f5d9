"""Designs are checked at birth and print, write and read as text."""

from dataclasses import replace

import pytest

from accel.design import Design
from numerics.accumulator import Accumulator
from numerics.formats import E4M3

SETTINGS = {
    "rows": 16,
    "columns": 16,
    "dataflow": "ws",
    "operand": "e4m3",
    "accumulator": "e6m9 chunk=64",
    "scratchpad_bytes": 65536,
    "accumulator_bytes": 16384,
    "offchip": "LPDDR4",
    "offchip_bytes_per_cycle": 16,
    "clock_mhz": 250,
}


def test_text_and_values_make_the_same_design():
    assert Design(**SETTINGS) == Design(
        **{**SETTINGS, "operand": E4M3, "accumulator": Accumulator("e6m9", chunk=64), "offchip": "lpddr4"}
    )


def test_a_word_holds_one_operand_per_row_and_the_banks_feed_both_edges():
    design = Design(**{**SETTINGS, "rows": 24, "columns": 40})
    assert design.scratchpad_width_bits == 24 * 8
    assert design.scratchpad_banks == 3  # (24 + 40) x 8 = 512 bits per cycle
    wide = Design(**{**SETTINGS, "rows": 128, "columns": 128})
    assert (wide.scratchpad_width_bits, wide.scratchpad_banks) == (512, 4)


def test_an_accumulator_bank_is_never_below_the_smallest_memory():
    design = Design(**{**SETTINGS, "columns": 64})
    assert design.accumulator_banks == 16  # 16 KB in banks of 1 KB
    assert design.accumulator_word_bits == 4 * 16
    assert design.sums_per_column == 16384 // (64 * 2)
    assert Design(**SETTINGS).accumulator_word_bits == 16  # one bank per column


def test_a_design_survives_toml():
    design = Design(**{**SETTINGS, "dataflow": "os", "clock_mhz": 333.25, "node_nm": 7, "sram_cells": "hp"})
    assert Design.from_toml(design.to_toml()) == design


def test_replace_keeps_the_derived_port_and_none_derives_it_anew():
    design = Design(**SETTINGS)
    assert replace(design, rows=32).scratchpad_width_bits == 128
    assert replace(design, rows=32, scratchpad_width_bits=None).scratchpad_width_bits == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be at least 1, got 0"),
        ({"columns": -3}, "columns must be at least 1, got -3"),
        ({"dataflow": "rs"}, "dataflow must be one of os, ws, is; got 'rs'"),
        ({"operand": "int8x"}, "format must be|fixed format must be"),
        ({"scratchpad_bytes": 100}, "scratchpad_bytes must be at least 1024, got 100"),
        ({"scratchpad_bytes": 1 << 30, "scratchpad_banks": 1}, "scratchpad of 1073741824 bytes in 1 banks"),
        ({"accumulator_bytes": 8}, "accumulator_bytes must be at least 1024, got 8"),
        ({"accumulator_bytes": 1024, "columns": 64}, "makes 1 banks: width_bits of an SRAM must be in"),
        ({"offchip": "tape"}, "offchip must be one of .*; got 'tape'"),
        ({"offchip_bytes_per_cycle": 0}, "offchip_bytes_per_cycle must be above 0, got 0"),
        ({"clock_mhz": float("nan")}, "clock_mhz must be above 0 and finite, got nan"),
        ({"node_nm": 90}, r"node_nm of an SRAM must be in 7\.\.45, got 90"),
        ({"overhead": -0.1}, "overhead must not be negative, got -0.1"),
        ({"scratchpad_width_bits": 4}, "scratchpad_width_bits must be at least 8, got 4"),
        ({"scratchpad_width_bits": 1024}, "width_bits of an SRAM must be in"),
        ({"mac_stages": 100}, r"mac_stages must be in 1\.\.4 for this cell, got 100"),
        ({"fold_overlap": "none"}, "fold_overlap must be one of serial, pipelined; got 'none'"),
        ({"sram_cells": "hvt"}, "cells must be one of hp, lop, lstp; got 'hvt'"),
    ],
)
def test_a_bad_value_is_named_at_birth(change, message):
    with pytest.raises(ValueError, match=message):
        Design(**{**SETTINGS, **change})


def test_a_fractional_size_is_a_type_error():
    with pytest.raises(TypeError, match=r"rows must be a whole number, got 2\.5"):
        Design(**{**SETTINGS, "rows": 2.5})


def test_a_misspelt_or_missing_key_is_named():
    with pytest.raises(ValueError, match="design has no key 'collumns'"):
        Design.from_mapping({**SETTINGS, "collumns": 3})
    with pytest.raises(ValueError, match="design needs the key 'clock_mhz'"):
        Design.from_mapping({key: value for key, value in SETTINGS.items() if key != "clock_mhz"})


def test_a_design_takes_every_cell_that_the_laws_cover():
    integer = Design(**{**SETTINGS, "operand": "int8", "accumulator": "int32"})
    assert (integer.mac.a_bits, integer.mac.accumulator_bits) == (8.0, 32)
    assert integer.scratchpad_width_bits == 16 * 8
    block = Design(**{**SETTINGS, "operand": "mxfp4", "accumulator": "fp32"})
    assert block.mac.a_bits == 4.25
    mixed = Design(**{**SETTINGS, "operand": "fp16", "weight": "int4", "accumulator": "fp32"})
    assert (mixed.mac.a_bits, mixed.mac.w_bits) == (16.0, 4.0)
    for found in (integer, block, mixed):
        assert Design.from_toml(found.to_toml()) == found


def test_a_pipelined_cell_is_quicker_and_larger():
    plain, piped = Design(**SETTINGS), Design(**SETTINGS, mac_stages=3)
    assert piped.mac_cell().delay_ns < plain.mac_cell().delay_ns
    assert piped.mac_cell().area_um2 > plain.mac_cell().area_um2
    assert "3 stages" in str(piped)


def test_settings_make_the_same_design_and_leave_derived_values_out():
    design = Design(**SETTINGS)
    assert Design.from_mapping(design.settings()) == design
    assert design.settings()["scratchpad_width_bits"] is None
    fixed = Design(**SETTINGS, scratchpad_width_bits=64)
    assert fixed.settings()["scratchpad_width_bits"] == 64


def test_a_file_is_read_with_its_own_tables_beside_it(tmp_path):
    (tmp_path / "tables.toml").write_text("[offchip.MY_DDR]\npj_per_bit = 12.0\nbandwidth_gb_s = 25.6\n")
    text = Design(**SETTINGS).to_toml().replace('"LPDDR4"', '"MY_DDR"') + 'library = "tables.toml"\n'
    (tmp_path / "chip.toml").write_text(text)
    design = Design.from_file(tmp_path / "chip.toml")
    assert design.offchip == "MY_DDR"
    assert Design.from_toml(tmp_path / "chip.toml") == design
    assert "offchip.MY_DDR.pj_per_bit" in design.library.replaced


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = ", "chip.toml is not TOML: Invalid value"),
        ("row = 4", r"chip.toml: design has no key 'row'; did you mean 'rows'\?"),
        ("rows = 4", "chip.toml: design needs the key 'columns'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    (tmp_path / "chip.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Design.from_file(tmp_path / "chip.toml")


def test_text_that_is_no_toml_is_refused():
    with pytest.raises(ValueError, match=r"a design is not TOML: .*; a path is read by from_file"):
        Design.from_toml("chip.toml")
