"""The options as Markdown: `python -m convmixer.config.table > docs/options.md` writes the documentation's page."""

from __future__ import annotations

from itertools import groupby

from convmixer.config.bulk import BulkOptions
from convmixer.config.inference import InferOptions
from convmixer.config.options import Option, as_text, options_of
from convmixer.config.schema import BenchmarkConfig, Config, EvalConfig, ExportConfig, LrFindConfig, PlanConfig
from convmixer.config.serve import ServeOptions
from convmixer.config.similar import SimilarOptions

INTRODUCTION = """# Options

Every option of `train`, `lr-find`, `plan`, `eval`, `export` and `benchmark`, as YAML key and as flag (`--base_lr` or
`--base-lr`). Defaults are overridden by the recipe, and that by the command line. `eval`, `export` and `benchmark`
accept all, and use those that their `--help` lists; the groups behind them belong to one command each. At the end are
the options of the commands that use a network, but for those that they share with the others. Made by
`python -m convmixer.config.table`; do not edit.
"""
USERS = {"infer": InferOptions, "bulk": BulkOptions, "similar": SimilarOptions, "serve": ServeOptions}


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    shared = options_of(Config)
    own = [
        option
        for model in (EvalConfig, ExportConfig, LrFindConfig, PlanConfig, BenchmarkConfig)
        for option in options_of(model)
        if option not in shared
    ]
    for group, options in groupby([*shared, *own], key=lambda option: option.group):
        parts.append(_section(group, list(options)))
    known = {(option.name, option.help) for option in (*shared, *own)}
    for command, model in USERS.items():
        of_command = [option for option in options_of(model) if (option.name, option.help) not in known]
        parts.append(_section(f"`{command}`", of_command))
    return "".join(parts)


def _section(title: str, options: list[Option]) -> str:
    rows = "".join(_row(option) for option in options)
    return f"\n## {title}\n\n| option | values | default | what it does |\n|---|---|---|---|\n{rows}"


def _row(option: Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.names, *option.flags))
    default = "" if option.default in (None, "") else f"`{as_text(option.default)}`"
    domain = option.domain.replace("|", "\\|")
    meaning = option.help.replace("<", "&lt;")  # `convmixer_<dim>_<depth>` would be taken for tags
    return f"| {names} | {domain} | {default} | {meaning} |\n"


if __name__ == "__main__":
    print(page(), end="")
