"""A finished campaign whose training is a formula: reports are tested without any training."""

from math import log2

import pandas as pd
import pytest

from dse import Campaign
from studies.codesign.campaign import Result, objectives_of, space_of
from studies.codesign.config import CampaignConfig
from studies.codesign.evaluate import cost_metrics
from studies.codesign.pricing import Pricing
from studies.codesign.quality import Quality
from studies.config import load
from studies.tasks import build_task

GUESS = 2.302585


def formula(parameters):
    """Training loss: two accumulator bits halve it, chunks are worth two bits and a wide operand one."""
    bits = parameters["accumulator_frac_bits"] + (2 if parameters["chunk"] else 0)
    bits += parameters["format"] == "e5m2"
    return 2.0 ** (1 - bits / 2)


def accuracy_of(loss):
    return 0.98 - 0.1 * max(0.0, log2(loss) + 3)


@pytest.fixture(scope="session")
def loss_of():
    return formula


@pytest.fixture(scope="session")
def found(tmp_path_factory, tiny_text):
    path = tmp_path_factory.mktemp("found") / "tiny.toml"
    path.write_text(tiny_text.replace("evaluations = 5", "evaluations = 24"))
    config = load(path, CampaignConfig)
    task = build_task(config.training.table)
    pricing = Pricing.of(config, task)
    space = space_of(config, pricing)
    first = {}

    def evaluate(parameters):
        loss = formula(parameters)
        key = (parameters["format"], parameters["accumulator_frac_bits"], parameters["chunk"],
               parameters["update_rounding"])  # fmt: skip
        accuracy = accuracy_of(loss)
        metrics = {
            **cost_metrics(pricing.cost(parameters)),
            "test_accuracy": accuracy,
            "test_accuracy_min": accuracy,
            "test_accuracy_max": accuracy,
            "test_error": 1 - accuracy,
            "trained_in": first.setdefault(key, len(first)),
        }
        return {"training_loss": loss}, {k: v for k, v in metrics.items() if k != "energy_pj"}

    with Campaign(space, objectives_of(config, pricing, GUESS), seed=1, method="sobol") as campaign:
        campaign.run(evaluate, budget=config.evaluations)
        design, cost = pricing.full_precision()
        twin = {"id": -1, "state": "reference", "format": "e8m23", "training_loss": 0.05,
                "test_accuracy": 0.98, **cost_metrics(cost),
                **{name: getattr(design, name) for name in ("rows", "columns", "dataflow", "scratchpad_bytes",
                                                            "offchip_bytes_per_cycle")}}  # fmt: skip
        return Result(
            config=config,
            task=task,
            pricing=pricing,
            space=space,
            objectives=campaign.objectives,
            evaluations=pd.concat([campaign.frame(), pd.DataFrame([twin])], ignore_index=True),
            front=campaign.pareto(),
            trials=campaign.trials,
            notes=campaign.notes,
        )


@pytest.fixture(scope="session")
def quality(found):
    return Quality(found.task.metric)
