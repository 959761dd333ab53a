"""The options as Markdown: `python -m convmixer.config.table > docs/options.md` writes the documentation's page."""

from __future__ import annotations

from itertools import groupby

from convmixer.config.options import Option, as_text, options_of
from convmixer.config.schema import BenchmarkConfig, Config, EvalConfig, ExportConfig, LrFindConfig, PlanConfig

INTRODUCTION = """# Options

Every option of `train`, `lr-find`, `plan`, `eval`, `export` and `benchmark`, as YAML key and as flag (`--base_lr` or
`--base-lr`). Defaults are overridden by the recipe, and that by the command line. `eval`, `export` and `benchmark`
accept all, and use those that their `--help` lists; the last groups belong to one command each. Made by
`python -m convmixer.config.table`; do not edit.
"""


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
        rows = "".join(_row(option) for option in options)
        parts.append(f"\n## {group}\n\n| option | values | default | what it does |\n|---|---|---|---|\n{rows}")
    return "".join(parts)


def _row(option: Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.names, *option.flags))
    default = "" if option.default in (None, "") else f"`{as_text(option.default)}`"
    domain = option.domain.replace("|", "\\|")
    meaning = option.help.replace("<", "&lt;")  # `convmixer_<dim>_<depth>` would be taken for tags
    return f"| {names} | {domain} | {default} | {meaning} |\n"


if __name__ == "__main__":
    print(page(), end="")
