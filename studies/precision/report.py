"""The report of a precision study: one self-contained HTML page, from the files of its run folder alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from studies.page import figure_html, write_page
from studies.precision import figures
from studies.precision.knees import Sweep, sweeps
from studies.precision.progress import mean_text
from studies.precision.results import Results, load_results
from studies.precision.rounding_errors import ROLES, averaged, worst
from studies.precision.table import TWIN

__all__ = ["load_results", "write_report"]

_CLASSES = {"matches": "good", "better": "good", "worse": "bad", "diverged": "bad"}


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Write the page of a run folder, finished or not; it needs no other file and no network.

    Parameters
    ----------
    path
        Where to; ``report.html`` in the folder by default.

    Returns
    -------
    The path.

    Raises
    ------
    FolderError
        The folder is not one of a study, or none of its runs can be compared.
    """
    results = load_results(folder)
    path = path or folder / "report.html"
    write_page("precision.html.j2", context_of(results), path)
    return path


def context_of(results: Results) -> dict[str, Any]:
    """What the template shows."""
    statistics, bits = results.statistics, results.bits
    table = pd.DataFrame() if statistics.empty else averaged(statistics)
    found = sweeps(results)
    of_all = results.table[results.table["policy"] != TWIN]
    return {
        "record": results.record,
        "config": results.config,
        "config_toml": tomli_w.dumps(dict(results.config)),
        "metric": results.record["metric"],
        "folder": str(results.folder),
        "runs": len(results.runs),
        "left": results.wanted - len(results.runs),
        "seeds": len(results.record["seeds"]),
        "columns": {
            "diverged": bool(results.table["diverged"].any()),
            "skipped": bool(results.table["skipped_steps"].any()),
        },
        "rows": [_row(row, results) for _, row in results.table.iterrows()],
        "verdicts": {
            word: int(of_all["verdict"].str.startswith(word).sum())
            for word in ("matches", "better", "worse", "diverged", "one seed", "twin diverged")
        },
        "diverged": [
            (run["policy"], run["seed"], run["diverged"])
            for _, run in results.runs.iterrows()
            if isinstance(run["diverged"], str)
        ],
        "bands": len(results.record["policies"]) - 1 <= figures.BANDS,
        "curves": figure_html(figures.curves(results)),
        "sweeps": [
            {"path": each.path, "lines": _knees(each), "plot": figure_html(figures.sweep(results, each))}
            for each in found
        ],
        "policies": [policy for policy in results.record["policies"] if policy["name"] != TWIN],
        "measured": [] if table.empty else list(dict.fromkeys(table["policy"])),
        "maps": _maps(table),
        "worst": _worst(table),
        "bits": _bits(bits),
        "bits_note": bits.attrs.get("note", ""),
        "has_bits_file": (results.folder / "bits.parquet").exists(),
    }


def _row(row: pd.Series[Any], results: Results) -> dict[str, Any]:
    """Cells of the table of verdicts."""
    cells = {str(name): value for name, value in row.items()}
    texts = {
        name: mean_text(cells[name], cells[f"{name}_interval"], sign=sign)
        for name, sign in (
            ("metric", ""),
            ("training_loss", ""),
            ("metric_difference", "+"),
            ("loss_difference", "+"),
        )
    }
    if cells["verdict"] == "matches":
        sign = 1.0 if results.record["metric"]["higher_is_better"] else -1.0
        most = cells["metric_difference_interval"] - sign * cells["metric_difference"]
        texts["verdict"] = f"matches, at most {most:.2g} worse"
    seconds = cells["relative_step_time"]
    return {
        **cells,
        **texts,
        "is_twin": cells["policy"] == TWIN,
        "kind": _CLASSES.get(cells["verdict"].split()[0], ""),
        "time": "" if math.isnan(seconds) else f"x{seconds:.2f}",
    }


def _knees(found: Sweep) -> list[str]:
    """A sentence for each line of a sweep."""
    if not found.has_knee:
        return []
    return [
        f"{line.name}: no knee, for runs with the largest value diverged or are too few"
        if line.knee is None
        else f"{line.name}: knee at {line.knee:g}"
        for line in found.lines
    ]


def _maps(table: pd.DataFrame) -> dict[str, Any]:
    """Heat maps of tensors and of products, as far as there are any."""
    if table.empty:
        return {}
    return {
        kind: figure_html(figures.maps(table, kind))
        for kind, roles in ROLES.items()
        if table["role"].isin(roles).any()
    }


_WORST = {
    "product": {
        "sqnr_db": "sum with the lowest SQNR",
        "swamped": "most swamped sum",
        "out_of_range": "sum most out of range",
    },
    "tensor": {
        "sqnr_db": "tensor with the lowest SQNR",
        "underflow": "most rounded to zero",
        "out_of_range": "tensor most out of range",
    },
}


def _worst(table: pd.DataFrame) -> dict[str, Any]:
    """Where each policy loses most: headings, and cells by policy."""
    if table.empty:
        return {}
    found = worst(table)
    measured = set(found[["kind", "measure"]].itertuples(index=False, name=None))
    wanted = [
        (kind, each) for kind, measures in _WORST.items() for each in measures if (kind, each) in measured
    ]
    cells: dict[str, dict[tuple[str, str], str]] = {policy: {} for policy in dict.fromkeys(table["policy"])}
    for _, row in found.iterrows():
        role = str(row["role"]).replace("_", " ")
        value = f"{row['value']:.1f} dB" if row["measure"] == "sqnr_db" else figures.share(row["value"])
        cells[row["policy"]][row["kind"], row["measure"]] = f"{row['layer'] or 'model'}, {role}: {value}"
    return {
        "headings": [_WORST[kind][measure] for kind, measure in wanted],
        "rows": [(policy, [mine.get(key, "-") for key in wanted]) for policy, mine in cells.items()],
    }


def _bits(table: pd.DataFrame) -> dict[str, Any]:
    """Used and predicted bits: figure, and a row for each policy with a floating-point accumulator."""
    if table.empty or table["used_bits"].isna().all():
        return {}
    with_bits = table.loc[table["used_bits"].notna(), "policy"]
    table = table[table["policy"].isin(with_bits)]
    rows = []
    for policy, mine in table.groupby("policy", sort=False):
        known = mine.dropna(subset=["slack"])
        short = known[known["slack"] < 0].sort_values("slack", kind="stable")
        worst_place = short.iloc[0] if len(short) else None
        rows.append(
            {
                "policy": policy,
                "products": len(mine),
                "known": len(known),
                "short": len(short),
                "place": ""
                if worst_place is None
                else f"{worst_place['layer'] or 'model'}, {worst_place['product']}: "
                f"{worst_place['used_bits']} used, {worst_place['emulated_bits']} emulated",
            }
        )
    return {"rows": rows, "plot": figure_html(figures.bits(table))}
