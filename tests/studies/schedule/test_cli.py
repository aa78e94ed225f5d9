"""`bitfront schedule`: what it prints and writes, and one line for bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from studies.cli import main

# x -> a; a -> b, a -> c; b -> p; c -> q; p, q -> d. The order of the file makes b and c live at once.
BRANCHES = {
    "name": "branches",
    "inputs": ["x"],
    "outputs": ["d"],
    "tensors": {"x": 1, "a": 1, "b": 6, "c": 6, "p": 1, "q": 1, "d": 1},
    "operators": [
        {"name": name, "kind": "op", "inputs": read, "outputs": [written], "weight_bytes": 0}
        for name, read, written in (
            ("A", ["x"], "a"),
            ("B1", ["a"], "b"),
            ("C1", ["a"], "c"),
            ("B2", ["b"], "p"),
            ("C2", ["c"], "q"),
            ("D", ["p", "q"], "d"),
        )
    ],
}


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "branches.json"
    path.write_text(json.dumps(BRANCHES))
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["schedule", *map(str, arguments)])


def refused(*arguments):
    """The one line that is printed in place of a result."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr.strip().removeprefix("error: ")


def test_it_prints_sizes_traffic_baselines_and_savings(graph):
    result = run(graph, "--scratchpad", 7)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "branches, inference, batch 1: 6 operators" in text
    assert "working-set minimum M_R 7 bytes, of B1; peak minimum M_P 8 bytes" in text
    assert "atomic mode, free order: OPTIMAL, gap 0 %" in text
    rows = {tuple(re.split(r" {2,}", line.strip())) for line in text.splitlines()}
    assert ("non-compulsory", "4", "4 B") in rows
    assert ("all off-chip traffic", "6", "6 B") in rows
    for title in ("baselines", "what the optimum saves of LRU", "tensors that come back"):
        assert title in text


def test_the_saving_adds_up_to_the_reference(graph, tmp_path):
    target = tmp_path / "plan.json"
    assert run(graph, "--scratchpad", 7, "--json", target).exit_code == 0
    document = json.loads(target.read_text())
    saving = document["saving"]
    saved = saving["order_bytes"] + saving["replacement_bytes"] + saving["fragmentation_bytes"]
    assert saving["reference_bytes"] - saved == document["noncompulsory_bytes"] == 4
    assert saving["order_bytes"] == 26 - 4  # the optimum in file order is 26


def test_json_has_the_names_of_a_schedule(graph, tmp_path):
    target = tmp_path / "plan.json"
    assert run(graph, "--scratchpad", "8B", "--json", target).exit_code == 0
    document = json.loads(target.read_text())
    assert document["working_set_minimum"], document["peak_minimum"] == (7, 8)
    assert (document["noncompulsory_bytes"], document["bound_bytes"], document["status"]) == (0, 0, "OPTIMAL")
    assert sorted(document["order"]) == sorted(op["name"] for op in BRANCHES["operators"])
    assert set(document["runs"][0]) == {"tensor", "start", "end", "address", "bytes"}
    assert {row["tensor"] for row in document["runs"]} == set(BRANCHES["tensors"])


def test_a_sweep_leaves_out_what_is_too_small_and_never_rises(graph, tmp_path):
    target = tmp_path / "plan.json"
    result = run(graph, "--sweep", "5:9:+1", "--order", "given", "--json", target)
    assert result.exit_code == 0, result.output
    document = json.loads(target.read_text())
    assert document["too_small"] == [5, 6]
    assert "below the working-set minimum, which --mode streamed can use: 5 B, 6 B" in result.stdout
    found = [(row["scratchpad_bytes"], row["noncompulsory_bytes"]) for row in document["sweep"]]
    assert found == [(7, 26), (8, 24), (9, 24)]


def test_streamed_mode_takes_any_size(graph, tmp_path):
    target = tmp_path / "plan.json"
    assert run(graph, "--scratchpad", 5, "--mode", "streamed", "--json", target).exit_code == 0
    document = json.loads(target.read_text())
    # b and c do not fit: each is stored and read once; so is a, or it stays.
    assert document["mode"] == "streamed"
    assert document["noncompulsory_bytes"] == 4 * 6
    assert document["status"] == "OPTIMAL"


def test_the_page_holds_map_curve_and_spilled_tensors(graph, tmp_path):
    target = tmp_path / "plan.html"
    result = run(graph, "--scratchpad", 7, "--sweep", "7,8,13", "--html", target)
    assert result.exit_code == 0, result.output
    page = target.read_text()
    assert page.count('class="plotly-graph-div"') == 3  # map, savings, traffic
    assert "address, KiB" in page
    assert "Tensors that come back" in page
    assert "How large must the scratchpad be?" in page
    assert "https://" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_a_size_below_the_working_set_names_operator_bytes_and_the_way_out(graph):
    assert refused(graph, "--scratchpad", 6) == (
        "a scratchpad of 6 bytes is too small: operator B1 alone needs 7 bytes, the working-set minimum M_R; "
        "--mode streamed has no such limit"
    )


def edited(graph, **changes):
    graph.write_text(json.dumps(BRANCHES | changes))
    return graph


def operators(**changes):
    """The operators of the graph, some fields of one of them changed."""
    name = changes.pop("of")
    return [op | changes if op["name"] == name else op for op in BRANCHES["operators"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": operators(of="A", inputs=["d"])}, "the operators form a cycle: A -> "),
        ({"operators": operators(of="C1", outputs=["b"])}, "tensor 'b' has two producers, B1 and C1"),
        ({"tensors": {"x": -1}}, "tensors['x']"),
        ({"tensors": {**BRANCHES["tensors"], "b": None}}, "tensors['b']"),
    ],
)
def test_a_graph_that_cannot_run_is_told_in_one_line(graph, changes, message):
    assert message in refused(edited(graph, **changes), "--scratchpad", 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--scratchpad or --sweep must give a size, got neither"),
        (("--scratchpad", "much"), "a size must be a number with B, KiB, MiB, GiB, kB, MB or GB, got 'much'"),
        (
            ("--scratchpad", "0"),
            "a size must be a whole number of bytes, at least 1 and below 2**62",
        ),
        (("--scratchpad", "512KB"), "a size must be in KiB, 1024 bytes, or in kB, 1000 bytes, got '512KB'"),
        (
            ("--scratchpad", "12 apples"),
            "a size must be a number with B, KiB, MiB, GiB, kB, MB or GB, got '12 ap",
        ),
        (("--scratchpad", "-1"), "a size must be a number with B, KiB, MiB, GiB, kB, MB or GB, got '-1'"),
        (("--scratchpad", "1.0001KiB"), "a size must be a whole number of bytes"),
        (("--sweep", "7,"), "a size must be a number with B, KiB, MiB, GiB, kB, MB or GB, got ''"),
        (("--sweep", "9:7:+1"), "a sweep must begin with its smallest size, got '9:7:+1'"),
        (
            ("--sweep", "7:9:+0"),
            "a size must be a whole number of bytes, at least 1 and below 2**62, got '0'",
        ),
        (("--sweep", "1:1000:+1"), "a sweep must have at most 200 sizes, '1:1000:+1' has more"),
        (("--sweep", "6,5"), "a scratchpad of 6 bytes is too small"),
        (("--scratchpad", "128", "--alignment", "64"), "operator D alone needs 192 bytes"),
        (("--scratchpad", "7", "--alignment", "0"), "alignment must be at least 1, got 0"),
        (("--scratchpad", "7", "--time-limit", "0"), "time_limit_s must be positive, got 0"),
        (("--scratchpad", "7", "--seed", "-1"), "seed must be a whole number in 0..2147483647, got -1"),
        (("--sweep", "8:4:x2"), "a sweep must begin with its smallest size, got '8:4:x2'"),
        (("--sweep", "4:8:2"), "a sweep must be FROM:TO:xFACTOR, FROM:TO:+STEP or a list A,B,C; got '4:8:2'"),
        (("--sweep", "4:8:x1"), "the factor of a sweep must be in 1.01..1e6, got '4:8:x1'"),
        (("--scratchpad", "7", "--backend", "gurobi"), "gurobi"),
        (("--scratchpad", "7", "--json", "no/such/folder.json"), "there is no folder no/such"),
        (
            ("--scratchpad", "7", "--json", "plan", "--html", "./plan"),
            "--json and --html must name two files, got plan for both",
        ),
        (("--scratchpad", "7", "--tile-reserve", "2"), "tile_reserve_bytes is for mode 'streamed'"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(graph, options, message):
    assert message in refused(graph, *options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.json", "", "is not JSON"),
        ("text.json", "hello", "is not JSON"),
        ("list.json", "[1, 2]", "the file must be a table of keys and values, got [1, 2]"),
        ("other.json", '{"nodes": []}', "name is missing"),
        ("empty.onnx", "", "is empty, not an ONNX file"),
        ("text", "hello", "is not an ONNX file: it is text that starts with 'hello'"),
        ("folder", None, "is a directory, not an ONNX file"),
        ("folder.json", None, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_no_network_is_told_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    told = refused(path, "--scratchpad", 7)
    assert message in told
    assert name in told


def test_a_sweep_of_one_size_is_a_schedule(graph):
    result = run(graph, "--sweep", 7)
    assert result.exit_code == 0, result.output
    assert "optimum on 7 B" in result.stdout


def test_the_page_marks_what_is_streamed(graph, tmp_path):
    target = tmp_path / "plan.html"
    assert run(graph, "--scratchpad", 5, "--mode", "streamed", "--html", target).exit_code == 0
    names = re.findall(r'"name":"([^"]+)"', target.read_text())
    assert {"spill, streamed", "refetch, streamed"} <= set(names)


def test_what_the_terminal_shows_has_whole_words(graph, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal for Rich, of 80 columns
    monkeypatch.setenv("COLUMNS", "80")
    text = re.sub(r"\x1b\[[0-9;]*m", "", run(graph, "--scratchpad", 7).stdout)
    assert max(map(len, text.splitlines())) <= 80
    assert "layer by" in text
    for word in ("non-compulsory", "relocations", "working-set", "replacement"):
        assert word in text.split()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that even root cannot write to")
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_what_cannot_be_written_is_told_before_the_network_is_read(option):
    told = refused("absent.json", "--scratchpad", 7, option, "/proc/plan")
    assert told.startswith("/proc/plan: cannot be written: ")


def test_an_unknown_network_is_told_in_one_line():
    assert "MODEL must be a file" in refused("resnet51", "--scratchpad", "1MiB")


def test_in_streamed_mode_the_baseline_is_layer_by_layer_alone(graph):
    text = run(graph, "--sweep", "5,8", "--mode", "streamed").stdout
    assert "layer by layer" in text
    assert "lru" not in text


def test_a_device_is_written_to_and_not_replaced(graph):
    result = run(graph, "--scratchpad", 7, "--json", "/dev/null")
    assert result.exit_code == 0, result.output
    assert Path("/dev/null").is_char_device()


def test_a_plan_takes_less_than_the_best_replacement_in_file_order(graph, tmp_path):
    target = tmp_path / "plan.json"
    assert run(graph, "--scratchpad", 7, "--order", "given", "--json", target).exit_code == 0
    saving = json.loads(target.read_text())["saving"]
    assert min(saving.values()) >= 0
    assert saving["order_bytes"] == 0
