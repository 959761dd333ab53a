"""The commands that functions in Python share with the command line: their options and the recipes they begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convmixer.config.command import Command
from convmixer.config.inference import InferOptions
from convmixer.config.schema import BenchmarkConfig, Config, EvalConfig, ExportConfig, LrFindConfig, PlanConfig

FOLDER_RECIPE = "small_folder"


def _recipe_of_data(given: Mapping[str, Any]) -> str:
    name = str(given.get("set", "imagenet" if "data_url" in given else "digits")).lower()
    return {"digits": "digits", "cifar10": "cifar10_256_8"}.get(name, FOLDER_RECIPE)


def _recipe_of_evaluation(given: Mapping[str, Any]) -> str | None:
    """As for training, but none for image folders: what the weights do not say of their input is then ImageNet's."""
    recipe = _recipe_of_data(given)
    return None if recipe == FOLDER_RECIPE else recipe


TRAIN = Command(
    "train",
    "Train a ConvMixer. FOLDER has a folder of images per class, or train and val that do; left out: the digits.",
    Config,
    positional="data_url",
    also_flag=True,
    takes_config=True,
    default_recipe=_recipe_of_data,
)
LR_FIND = Command(
    "lr-find",
    "Train for some steps with an ever higher learning rate, and suggest the run's peak. All options are train's.",
    LrFindConfig,
    positional="data_url",
    also_flag=True,
    takes_config=True,
    listed_with="train",
    default_recipe=_recipe_of_data,
)
PLAN = Command(
    "plan",
    "Measure for some seconds, and say what a run will take and what to mind. All options are train's.",
    PlanConfig,
    positional="data_url",
    also_flag=True,
    takes_config=True,
    listed_with="train",
    default_recipe=_recipe_of_data,
)
EVAL = Command(
    "eval",
    "Evaluate the weights of --pretrained on the evaluation images.",
    EvalConfig,
    positional="data_url",
    also_flag=True,
    takes_config=True,
    default_recipe=_recipe_of_evaluation,
)
EXPORT = Command(
    "export",
    "Export the weights of --pretrained, and compare.",
    ExportConfig,
    positional="data_url",
    also_flag=True,
    takes_config=True,
)
BENCHMARK = Command(
    "benchmark",
    "Compare model files on this machine: size, speed, and with --data_url what they get right.",
    BenchmarkConfig,
    positional="files",
    takes_config=True,
    listed_with="eval",
)
INFER = Command("infer", "Classify images.", InferOptions, positional="data")
