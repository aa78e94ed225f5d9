"""What is known of a candidate's training before it is trained: features, and the accuracy model's guess.

The float32 twin of the campaign's own task is looked at once, and every numerics is then described in
milliseconds (`studies.accuracy.features`). The accuracy model, fitted to runs of other tasks, turns that into
the share that training keeps of what full precision learns: the learnt objective need only find out by how
much this task, and its loss, depart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from numerics import FloatFormat
from studies.accuracy.policies import NumericsChoice
from studies.accuracy.scale import modelled
from studies.accuracy.statistics import TaskStatistics
from studies.cache import Kept, cache_folder
from studies.codesign.config import CampaignConfig
from studies.codesign.pricing import numerics_names
from studies.config import ConfigError
from studies.tasks import Data, Task

if TYPE_CHECKING:
    from studies.accuracy.model import AccuracyModel

NAME = "campaign"  #: of the campaign's task among those that the accuracy model knows
PREDICTED = "predicted_kept"  #: feature of the accuracy model, on its own scale

#: Features of numerics that the search reads. Few: with a handful of trainings it cannot tell many apart.
READ = ("forward_total", "backward_total", "gradient_total", "update_lost", "update_noise")

_VERSION = 1  # of kept statistics

Features = Callable[[dict[str, Any]], Mapping[str, float]]


def choice_of(config: CampaignConfig, parameters: Mapping[str, Any]) -> NumericsChoice:
    """A candidate's numerics in the words of the accuracy model.

    Formats are taken as of IEEE kind: what a finite format gains at its upper end is left out.
    """
    forward = FloatFormat.parse(parameters["format"])
    backward = FloatFormat.parse(parameters.get("backward_format") or parameters["format"])
    update = FloatFormat.parse(config.training.update_format)
    return NumericsChoice(
        forward_exp_bits=forward.exp_bits,
        forward_frac_bits=forward.frac_bits,
        backward_exp_bits=backward.exp_bits,
        backward_frac_bits=backward.frac_bits,
        accumulator_exp_bits=parameters["accumulator_exp_bits"],
        accumulator_frac_bits=parameters["accumulator_frac_bits"],
        chunk=parameters["chunk"],
        update_exp_bits=update.exp_bits,
        update_frac_bits=update.frac_bits,
        update_rounding=parameters["update_rounding"],
        loss_scale=config.training.loss_scale,
    )


def statistics_of(config: CampaignConfig, task: Task, data: Data) -> TaskStatistics:
    """Statistics of the campaign's task under its own recipe, trained with the campaign's first seed.

    They are kept across campaigns, by recipe and data.
    """
    training = config.training
    kept = Kept(cache_folder(), "statistics")
    key = {
        "version": _VERSION,
        "seed": config.seed,
        "recipe": training.model_dump(mode="json", exclude_none=True),
        "data": _digest(data),
        "torch": version("torch"),
    }
    if (stored := kept.read(key)) is not None:
        return TaskStatistics.from_json(stored)
    from studies.accuracy.probe import tensor_statistics

    found = tensor_statistics(
        NAME,
        task,
        data,
        optimizer=training.rule,
        steps=training.steps,
        batch=training.batch,
        seed=config.seed,
    ).to_json()
    kept.write(key, found)
    # Stored numbers are rounded: a campaign that goes on must not see others.
    return TaskStatistics.from_json(found)


def _digest(data: Data) -> str:
    """Of what is trained on."""
    found = sha256()
    for tensor in (data.train_inputs, data.train_labels):
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def fitted_model(statistics: TaskStatistics, *, left_out: Collection[str] = ()) -> AccuracyModel:
    """Accuracy model of the runs that come with the package, which also knows a task by its statistics alone.

    Parameters
    ----------
    left_out
        Tasks whose runs it is not to learn from.
    """
    from studies.accuracy.model import AccuracyModel
    from studies.accuracy.runs import read_runs
    from studies.accuracy.statistics import known

    runs = read_runs()
    model = AccuracyModel({**known(), statistics.task: statistics})
    return model.fit(runs[~runs["task"].isin(list(left_out))])


def check_formats(config: CampaignConfig) -> None:
    """Refuse a space of which there are no features.

    Raises
    ------
    ConfigError
        A format that is wider or narrower than what the accuracy model speaks of.
    """
    names = numerics_names(config.space)
    first = {name: getattr(config.space, name)[0] for name in names}
    for name in ("format", "backward_format"):
        for text in getattr(config.space, name) or ():
            try:
                choice_of(config, {**first, name: text})
            except (TypeError, ValueError) as error:
                raise ConfigError(f"search.features: has none of space.{name} {text}: {error}") from None


def features_for(
    config: CampaignConfig, prepare: Callable[[], tuple[TaskStatistics, AccuracyModel]]
) -> Features:
    """Features of a candidate: noise of its products and of its update, and the model's guess.

    Parameters
    ----------
    prepare
        Gives the statistics of the task, and the fitted model that knows them; called once, when the first
        features are asked for.
    """
    from studies.accuracy.features import features_of

    prepared: list[tuple[TaskStatistics, AccuracyModel]] = []
    found: dict[NumericsChoice, dict[str, float]] = {}

    def features(parameters: dict[str, Any]) -> dict[str, float]:
        if not prepared:
            prepared.append(prepare())
        statistics, model = prepared[0]
        choice = choice_of(config, parameters)
        if choice not in found:
            noise = features_of(statistics, choice)
            kept, _ = model.predict(statistics.task, [choice])
            found[choice] = {**{name: noise[name] for name in READ}, PREDICTED: float(modelled(kept)[0])}
        return found[choice]

    return features
