"""Makes tiny_mindspore.ckpt and tiny_mindspore.npz with the real MindSpore (2.10.0, CPU), in the folder of this file.

Run once by hand, in an environment of its own: `pip install mindspore==2.10.0`, then `python make_tiny_mindspore.py`.
The network is a ConvMixer 8/2 (kernel 3, patch 2, GELU, 10 classes) whose cells are nested as the model zoo's are; the
checkpoint is saved as a training run saves it, with optimizer moments and counters beside the weights. The .npz holds
each weight under MindSpore's own name, two input images and the logits that MindSpore computes for them.
"""

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

DIM, DEPTH, KERNEL, PATCH, CLASSES = 8, 2, 3, 2, 10


class Residual(nn.Cell):
    def __init__(self, fn: Any) -> None:
        super().__init__()
        self.fn = fn

    def construct(self, x: Any) -> Any:
        return x + self.fn(x)


class MeanPool(nn.Cell):
    def construct(self, x: Any) -> Any:
        return x.mean((2, 3))


class Network(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        plain: dict[str, Any] = {"pad_mode": "pad", "padding": 0, "has_bias": True}
        blocks = [
            nn.SequentialCell(
                Residual(
                    nn.SequentialCell(
                        nn.Conv2d(DIM, DIM, KERNEL, group=DIM, pad_mode="same", has_bias=True),
                        nn.GELU(),
                        nn.BatchNorm2d(DIM),
                    )
                ),
                nn.Conv2d(DIM, DIM, 1, **plain),
                nn.GELU(),
                nn.BatchNorm2d(DIM),
            )
            for _ in range(DEPTH)
        ]
        stem = [nn.Conv2d(3, DIM, PATCH, stride=PATCH, **plain), nn.GELU(), nn.BatchNorm2d(DIM)]
        self.network = nn.SequentialCell(*stem, *blocks, MeanPool(), nn.Flatten(), nn.Dense(DIM, CLASSES))

    def construct(self, x: Any) -> Any:
        return self.network(x)


def main() -> None:
    here = Path(__file__).parent
    rng = np.random.default_rng(0)
    network = Network().set_train(False)
    for name, parameter in network.parameters_and_names():
        low, high = (0.5, 1.5) if name.endswith(("gamma", "moving_variance")) else (-0.5, 0.5)
        parameter.set_data(ms.Tensor(rng.uniform(low, high, parameter.shape).astype(np.float32)))
    optimizer = nn.AdamWeightDecay(network.trainable_params(), learning_rate=1e-3)

    saved = {parameter.name: parameter for parameter in network.get_parameters()}
    saved |= {parameter.name: parameter for parameter in optimizer.get_parameters()}
    entries = [{"name": name, "data": parameter} for name, parameter in saved.items()]
    entries.append({"name": "scale_sense", "data": ms.Tensor(1024.0, ms.float32)})
    extra = {"epoch_num": 3, "step_num": 12, "learning_rate": 0.001, "run": "tiny"}
    ms.save_checkpoint(entries, str(here / "tiny_mindspore.ckpt"), append_dict=extra, crc_check=True)

    images = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    logits = network(ms.Tensor(images)).asnumpy()
    np.savez_compressed(here / "tiny_mindspore.npz", images=images, logits=logits, **arrays)


if __name__ == "__main__":
    main()
