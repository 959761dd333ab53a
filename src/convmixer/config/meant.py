"""What a user meant by a name that is no option: the nearest one, or the one that other programs call so."""

from __future__ import annotations

import difflib
import unicodedata
from typing import NoReturn, Protocol

from convmixer.config.options import Options, options_of
from convmixer.errors import UserError

# Option -> what other programs call it, for all commands. Where two options of a command have a name, the first wins,
# and what its help lists before what it only accepts.
OTHER_NAMES = {
    "checkpoint": "pretrained weights ckpt model model_path w load resume",
    "onnx_path": "model model_path onnx checkpoint weights pretrained",
    "weights": "checkpoint pretrained input model model_path",
    "pretrained": "weights checkpoint ckpt load finetune fine_tune init_checkpoint model_path",
    "data": "input image images img source src folder path i data_url data_dir data_path dataset",
    "dataset": "data data_url data_dir data_path path folder",
    "data_url": "data data_dir data_path root folder path",
    "set": "dataset dataset_name d",
    "config": "c cfg yaml recipe config_file config_path",
    "output": "out o out_dir output_dir output_file save save_dir result",
    "ckpt_root_dir": "output_dir output out out_dir save_dir o",
    "summary_root_dir": "log_dir logdir logs tensorboard",
    "model_postfix": "name run_name experiment",
    "arch": "model model_name network net architecture m",
    "num_classes": "nb_classes",
    "kernel_size": "ks",
    "batch_size": "bs batch b per_device_train_batch_size",
    "num_parallel_workers": "workers num_workers threads w",
    "image_size": "img img_size imgsz input_size size resolution res",
    "auto_augment": "augment ra",
    "re_prob": "random_erasing",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "base_lr": "lr learning_rate max_lr blr peak_lr",
    "warmup_length": "warmup warmup_steps",
    "lr_scheduler": "sched lr_policy",
    "weight_decay": "decay",
    "clip_grad_norm": "grad_clip gradient_clip_val",
    "with_ema": "ema model_ema",
    "ema_decay": "model_ema_decay",
    "epochs": "e",
    "resume": "continue",
    "accumulate": "grad_accum",
    "device_num": "gpus num_gpus ngpus nproc nproc_per_node world_size devices",
    "sync_bn": "sync_batchnorm",
    "precision": "half quantize quantise dtype",
    "amp_level": "fp16 bf16 half mixed_precision",
    "device_target": "device gpu",
    "device_id": "gpu_id",
    "ckpt_keep_num": "keep save_total_limit",
    "ckpt_save_every_step": "save_steps save_every save_interval",
    "print_loss_every": "log_interval log_every logging_steps print_freq",
    "execution": "backend",
    "to": "format layout target",
    "topk": "k top_k",
}


class Command(Protocol):
    """What is needed of a `loading.Command`."""

    @property
    def model(self) -> type[Options]: ...
    @property
    def positional(self) -> str | None: ...
    @property
    def takes_config(self) -> bool: ...
    def shows(self, name: str) -> bool: ...


class Meant:
    """The names of a command's options, and what may be taken for them."""

    def __init__(self, command: Command) -> None:
        self._positional = command.positional
        self._names = {name: option.name for option in options_of(command.model) for name in option.names}
        if command.takes_config:
            self._names["config"] = "config"
        known = sorted(OTHER_NAMES.keys() & self._names.keys(), key=list(OTHER_NAMES).index)
        self._other: dict[str, str] = {}
        for name in sorted(known, key=lambda name: not command.shows(name)):
            for other in OTHER_NAMES[name].split():
                self._other.setdefault(other, name)

    def refuse(self, word: str) -> NoReturn:
        """For a word of the command line that no option takes."""
        if not word.startswith("-"):
            raise UserError(f"unexpected argument {word!r}; see --help")
        raise UserError(
            f"unknown option {word.partition('=')[0]}; {self.hint(word.lstrip('-').partition('=')[0], '--')}"
        )

    def refuse_typographic(self, word: str) -> None:
        """Raise UserError for an option behind a dash of a word processor, as in \u2013epochs."""
        rest = word.lstrip("-\u2212" + _DASHES)
        name = rest.partition("=")[0].replace("-", "_")
        if not word[:2].isascii() and word != rest and (name in self._names or name in self._other):
            raise UserError(
                f"{word.partition('=')[0]}: begins with {unicodedata.name(_first_odd(word))}, not with --; "
                + self.hint(name, "--")
            )

    def hint(self, name: str, prefix: str = "") -> str:
        """A question with the nearest option, or where help is to be found."""
        near = self._nearest(name.lower().replace("-", "_"))
        if near is None:
            return "see --help for the options"
        if near == self._positional:
            return f"{near.upper()} stands without a flag"
        return f"did you mean {prefix}{near}?"

    def _nearest(self, name: str) -> str | None:
        if name in self._names:
            return name
        if name in self._other:
            return self._other[name]
        if len(name) > 2:
            longer = [known for known in self._names if known.startswith(name)]
            if longer:
                return longer[0]
        near = difflib.get_close_matches(name, self._names, n=1, cutoff=0.5)
        return near[0] if near else None


_DASHES = "".join(chr(code) for code in range(0x2010, 0x2016))


def _first_odd(word: str) -> str:
    return next(letter for letter in word if not letter.isascii())
