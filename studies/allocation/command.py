"""``bitfront allocate``; heavy imports sit inside, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from studies.refusal import check_folder, refuse

if TYPE_CHECKING:
    import pandas as pd

    from studies.allocation.subject import Subject

SUBJECTS = ("robot-arm", "digits-cnn")
METHODS = ("learned", "by-size", "additive", "bayesian", "random", "exhaustive")


@click.group()
def allocate() -> None:
    """Give few bits to the tensors that need few."""


@allocate.command()
@click.argument("subject", type=click.Choice(SUBJECTS))
@click.option(
    "--method",
    "methods",
    type=click.Choice(METHODS),
    multiple=True,
    default=("learned",),
    show_default=True,
    help="How assignments are chosen, repeatable.",
)
@click.option("--budget", type=int, default=200, show_default=True, help="Assignments that are tried.")
@click.option("--threshold", type=float, help="Quality that is wanted; by default what SUBJECT says.")
@click.option(
    "--format", "formats", multiple=True, help="A candidate, repeatable; by default those of SUBJECT."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of SUBJECT and of methods that draw.",
)
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of all answers; a search begun again takes them from there.",
)
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write the assignments.")
def formats(
    subject: str,
    methods: tuple[str, ...],
    budget: int,
    threshold: float | None,
    formats: tuple[str, ...],
    seed: int,
    store: Path | None,
    csv: Path | None,
) -> None:
    """Find formats of SUBJECT's tensors that move the fewest bytes at a quality that is good enough.

    robot-arm is a trajectory optimiser of a seven-joint arm, whose quality is the excess cost of its motions
    over float64; digits-cnn is a trained network, whose quality is its accuracy on held-out images.
    """
    from studies.allocation.terminal import assignments, show_formats

    for path in (store, csv):
        check_folder(path)
    if budget < 1:
        refuse(f"--budget must be at least 1, got {budget}")
    try:
        made = _subject(subject, seed)
        options = {
            name: value
            for name, value in (("threshold", threshold), ("formats", formats or None))
            if value is not None
        }
        found = [made.search(method=m, budget=budget, seed=seed, store=store, **options) for m in methods]
        show_formats(made, found, threshold=made.threshold if threshold is None else threshold)
        if csv is not None:
            assignments(found).to_csv(csv, index=False)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror or error}")
    except ValueError as error:
        refuse(str(error))


def _subject(name: str, seed: int) -> Subject:
    if name == "robot-arm":
        from studies.allocation.robot import robot_arm

        return robot_arm(seed)
    from studies.allocation.network import digits_network

    return digits_network(seed)


@allocate.command()
@click.option(
    "--bits-per-weight", "mean_bits", type=float, default=4.5, show_default=True, help="Of all layers."
)
@click.option(
    "--lost", type=float, default=1.0, show_default=True, help="Accuracy that may be lost, in percent."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of training and of probes."
)
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write the table.")
def bits(mean_bits: float, lost: float, seed: int, csv: Path | None) -> None:
    """Find the integer bits of each layer's weights in the digits CNN, by curvature and measured.

    Under a mean number of bits by water-filling, greedily, by integer programming and by trying all; and the
    fewest bits for an accuracy by bisection.
    """
    from studies.allocation.layer_bits import BITS, digits_layers
    from studies.allocation.terminal import show_bits

    check_folder(csv)
    if not BITS[0] <= mean_bits <= BITS[-1]:
        refuse(f"--bits-per-weight must be in {BITS[0]}..{BITS[-1]}, got {mean_bits:g}")
    if not 0 <= lost < 100:
        refuse(f"--lost must be at least 0 and below 100, got {lost:g}")
    try:
        layers = digits_layers(seed)
        exact = layers.accuracy((16,) * len(layers.names))
        under: pd.DataFrame = layers.under(mean_bits)
        reaching = layers.reaching(exact - lost)
        show_bits(layers, under, reaching, mean_bits=mean_bits, accuracy=exact - lost)
        if csv is not None:
            under.to_csv(csv, index=False)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror or error}")
    except ValueError as error:
        refuse(str(error))
