"""What the README shows works as written."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_python_examples_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert names["dot"](names["ones"], names["ones"], "e6m9") == 1024.0
    assert names["dot"](names["ones"], names["ones"], "e6m9 chunk=64") == 4096.0
    assert (names["required_bits"](4608), names["required_bits"](4608, chunk=64)) == (9, 5)
    assert len(names["front"]) >= 5
    names["campaign"].close()
    assert "OPTIMAL" in printed.getvalue()


def test_the_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)^make (\w+)", text):
        assert re.search(rf"(?m)^{target}:", makefile)
    for path in re.findall(r"(?:docs|studies)/[\w/.]+\.(?:md|toml|png)", text):
        assert (ROOT / path).exists(), path
