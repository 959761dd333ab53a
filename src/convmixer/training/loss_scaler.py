"""The scale of the loss in fp16, which keeps small gradients from becoming zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from convmixer.errors import RUN_FAILED, UserError
from convmixer.precision import Precision
from convmixer.training.optimizer import honours_found_inf

if TYPE_CHECKING:
    from convmixer.config.execution import LossScaleOptions

ScalingMode = Literal["none", "fixed", "dynamic"]

# Below this the gradients are not too large for fp16: they are not finite at any scale.
MIN_SCALE = 2.0**-14


class LossScaler:
    """Multiplies the loss before the backward pass and divides the gradients after it: fp16 then keeps small ones.

    An optimizer step is: `scale(loss).backward()` for each accumulated batch, `unscale_(optimizer)` once, clip,
    `step(optimizer)`.

    * `none`: does nothing and never waits for the device.
    * `fixed`: always `loss_scale`. Gradients that are not finite come through, for the caller to see.
    * `dynamic`: torch's GradScaler from `loss_scale` on. A step whose gradients are not finite is skipped and halves
      the scale; 2000 good steps in a row double it.

    `value` is the scale of the next backward pass, a plain float.
    """

    @classmethod
    def of(cls, options: LossScaleOptions, precision: Precision) -> LossScaler:
        """fp16 scales the loss, dynamically or by the fixed `loss_scale`; bf16 and fp32, with its range, never do."""
        if precision.dtype != torch.float16:
            return cls()
        return cls("dynamic" if options.is_dynamic_loss_scale else "fixed", options.loss_scale, precision.device_type)

    def __init__(self, mode: ScalingMode = "none", loss_scale: float = 1.0, device_type: str = "cpu") -> None:
        assert loss_scale > 0
        self.mode = mode
        # As GradScaler holds it: a value that fp32 rounds down must not look like a scale that was halved.
        self.value = 1.0 if mode == "none" else torch.tensor(loss_scale, dtype=torch.float32).item()
        self._grad_scaler: torch.amp.GradScaler | None = None
        if mode == "dynamic":
            self._grad_scaler = torch.amp.GradScaler(device_type, init_scale=self.value)

    @property
    def description(self) -> str:
        """A few words for the user."""
        return {
            "none": "no loss scaling needed",
            "fixed": f"fixed loss scale {self.value:g}",
            "dynamic": f"dynamic loss scale from {self.value:g}",
        }[self.mode]

    @property
    def skips_non_finite(self) -> bool:
        """Whether gradients that are not finite are this class's business and not the caller's."""
        return self._grad_scaler is not None

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, times the scale."""
        if self._grad_scaler is not None:
            scaled: torch.Tensor = self._grad_scaler.scale(loss)
            return scaled
        return loss if self.mode == "none" else loss * self.value

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place."""
        if self._grad_scaler is not None:
            self._grad_scaler.unscale_(optimizer)
        elif self.mode == "fixed":
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1.0 / self.value)

    def step(self, optimizer: torch.optim.Optimizer, found_inf: torch.Tensor | None = None) -> bool:
        """The optimizer's step; False when it was skipped.

        `found_inf`, a scalar on the device, not for `dynamic` and only for an optimizer that honours it: where it is 1
        nothing changes; that is not waited for, and counts as made. `dynamic` waits for the device: whether a step was
        skipped decides how the average is warmed up from there on. Raises UserError when a dynamic scale has been
        halved until nothing is left of it.
        """
        if self._grad_scaler is None:
            if found_inf is None:
                optimizer.step()
                return True
            assert honours_found_inf(optimizer), "its update would be made whatever the flag says"
            # As GradScaler sets it, and for one step only.
            flagged: Any = optimizer
            flagged.found_inf = found_inf
            try:
                optimizer.step()
            finally:
                del flagged.found_inf
            return True
        assert found_inf is None, "a dynamic scale finds out by itself"
        self._grad_scaler.step(optimizer)
        self._grad_scaler.update()
        before, self.value = self.value, self._grad_scaler.get_scale()
        if self.value < MIN_SCALE:
            raise UserError(
                f"the loss scale fell to {self.value:g}: the gradients are not finite at any scale; "
                "lower base_lr, or use amp_level: O0 or amp_dtype: bf16.",
                exit_code=RUN_FAILED,
            )
        return self.value >= before

    def state_dict(self) -> dict[str, Any]:
        """The dynamic scale and its count of good steps; empty for the other modes, which have no state."""
        return {} if self._grad_scaler is None else self._grad_scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. One from a mode without state (a run that moved from bf16) leaves the scale as it is."""
        if self._grad_scaler is not None and state:
            self._grad_scaler.load_state_dict(state)
            self.value = self._grad_scaler.get_scale()
