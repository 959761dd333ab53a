"""How the filters of the depthwise convolutions begin, where not as torch's convolutions do."""

from __future__ import annotations

import torch

from convmixer.model import ConvMixer

SMOOTH = 1.0  # positions, over which the weights of a filter go together
REACH = 1.5  # positions, over which they become small away from the middle


def filter_covariance(kernel_size: int) -> torch.Tensor:
    """Covariance of the weights of a filter [k, k] in the order of its rows, float64 [k * k, k * k].

    Of the weights at p and q: exp(-|p - q|^2 / (2 SMOOTH^2)) exp(-|p|^2 / (2 REACH^2)) exp(-|q|^2 / (2 REACH^2)), in
    positions from the middle; the mean variance is 1. So filters are smooth and look at the middle, as trained ones do
    (Trockman, Willmott and Kolter 2022, https://arxiv.org/abs/2210.03651, whose closed form is another one).
    """
    side = torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2
    places = torch.cartesian_prod(side, side)
    reach = torch.exp(-places.square().sum(dim=1) / (2 * REACH**2))
    apart = (places[:, None] - places[None]).square().sum(dim=2)
    found = torch.exp(-apart / (2 * SMOOTH**2)) * reach[:, None] * reach[None]
    return found / found.diagonal().mean()


def draw_filters(model: ConvMixer) -> None:
    """Draw the depthwise filters anew by `filter_covariance`, in torch's variance of them and by torch's generator."""
    size = model.arch.kernel_size
    # Far from each other in a large filter two weights' parts are all but given by the others': a little of their own.
    root = torch.linalg.cholesky(filter_covariance(size) + 1e-9 * torch.eye(size**2, dtype=torch.float64))
    for name, weight in model.named_parameters():
        if name.endswith("depthwise.weight"):
            draws = torch.randn(len(weight), size**2, dtype=torch.float64) @ root.T
            # torch's are uniform between -1 / k and 1 / k, whose variance is a third of 1 / k^2.
            with torch.no_grad():
                weight.copy_(draws.view(weight.shape) / (3**0.5 * size))
