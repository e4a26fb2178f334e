"""Limited-memory BFGS for a stack of networks.

Axes: N networks in a stack (1 for a plain model), P parameters of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from platforms.platform import get_platform
from training.second_order import SecondOrder

BACKTRACKS, ARMIJO, CURVATURE = 25, 1e-4, 1e-10


@dataclass(frozen=True)
class Point:
    """The networks of a stack at some parameters `[N, P]`, with their losses `[N]` and gradients `[N, P]` there."""

    parameters: torch.Tensor
    losses: torch.Tensor
    gradients: torch.Tensor


class LBFGS(SecondOrder):
    """Limited-memory BFGS (Nocedal 1980) for a stack of networks, each with its own curvature and step.

    The networks of a stack share only the forward and backward passes. Each network has its own history and direction, and backtracks
    separately until its loss falls enough (Armijo). A pair of differences with too little curvature is left out of a network's history.
    The optimizer has converged when no network can reduce its loss.

    Args:
        model: a plain model, or students.
        lr: the first trial step along a direction; 1 suits all steps but the first.
        history: the number of pairs that are kept.
    """

    def __init__(self, model: torch.nn.Module, lr: float = 1.0, history: int = 20):
        super().__init__(model, {"lr": lr, "history": history})
        self.networks = getattr(model, "networks", 1)
        self._last: tuple[torch.Tensor, Point] | None = None  # the batch of the last step, and where it led to on that batch

    @torch.no_grad()
    def step(self, closure) -> torch.Tensor:
        """Takes one step on the batch of a closure (`training.train.Objective`) and returns the loss before it."""
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        steps, changes = state.get("steps", []), state.get("changes", [])
        if self._last is None or closure.examples is not self._last[0]:
            self._last = closure.examples, self._evaluate(closure, self._flat(group["params"]))
        here = self._last[1]
        direction = two_loop(here.gradients, steps, changes)
        uphill = (direction * here.gradients).sum(1) >= 0
        direction[uphill] = -here.gradients[uphill]
        rates = group["lr"] * (torch.ones_like(here.losses) if steps else (1 / here.gradients.norm(dim=1)).clamp(max=1.0))
        accepted, there = self._search(closure, here, direction, rates)
        self._write(there.parameters)
        self._last = closure.examples, there
        (moved,) = get_platform().any_process(bool(accepted.any()))
        self.converged = self.converged or (not steps and not moved)
        step, change = there.parameters - here.parameters, there.gradients - here.gradients
        keep = accepted[:, None]  # a network without a step discards its history and restarts with its gradient
        curved = keep & ((step * change).sum(1) > CURVATURE * step.norm(dim=1) * change.norm(dim=1))[:, None]
        if moved:
            state["steps"] = [*(old * keep for old in steps), step * curved][-group["history"] :]
            state["changes"] = [*(old * keep for old in changes), change * curved][-group["history"] :]
        else:
            state["steps"], state["changes"] = [], []
        return here.losses.sum()

    def _search(self, closure, here: Point, direction: torch.Tensor, rates: torch.Tensor) -> tuple[torch.Tensor, Point]:
        """Backtracks each network separately until its loss falls enough; a network without such a step keeps its parameters.

        Args:
            closure: the objective.
            here: the point to start from.
            direction: of each network, `[N, P]`.
            rates: the first trial step of each network as a multiple of its direction, `[N]`.

        Returns:
            Which networks have moved `[N]`, and the point after that.
        """
        slopes = (direction * here.gradients).sum(1)
        accepted = torch.zeros_like(here.losses, dtype=torch.bool)
        there = Point(here.parameters.clone(), here.losses.clone(), here.gradients.clone())
        for _ in range(BACKTRACKS):
            trial = self._evaluate(closure, torch.where(accepted[:, None], there.parameters, here.parameters + rates[:, None] * direction))
            good = ~accepted & (trial.losses < here.losses) & (trial.losses <= here.losses + ARMIJO * rates * slopes)
            there.parameters[good], there.losses[good] = trial.parameters[good], trial.losses[good]
            there.gradients[good] = trial.gradients[good]
            accepted |= good
            if bool(accepted.all()):
                break
            rates = torch.where(accepted, rates, rates / 2)
        return accepted, there

    @torch.enable_grad()
    def _evaluate(self, closure, parameters: torch.Tensor) -> Point:
        """The networks at some parameters `[N, P]`, which they keep."""
        self._write(parameters)
        outputs = closure.model(closure.examples)
        if hasattr(closure.model, "individual_losses"):
            losses = closure.model.individual_losses(outputs, closure.labels)
        else:
            losses = closure.model.loss_criterion(outputs, closure.labels)[None]
        gradients = torch.autograd.grad(losses.sum(), self.param_groups[0]["params"])
        return Point(parameters, losses.detach(), self._flat(gradients))

    def _flat(self, tensors) -> torch.Tensor:
        return torch.cat([tensor.detach().reshape(self.networks, -1) for tensor in tensors], 1)

    @torch.no_grad()
    def _write(self, flat: torch.Tensor) -> None:
        parameters: list[torch.Tensor] = self.param_groups[0]["params"]
        sizes = [parameter.numel() // self.networks for parameter in parameters]
        for parameter, part in zip(parameters, flat.split(sizes, 1), strict=True):
            parameter.copy_(part.reshape(parameter.shape))


def two_loop(gradients: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor]) -> torch.Tensor:
    """The quasi-Newton direction `-H g` of each network, `[N, P]` (the two-loop recursion of Nocedal 1980).

    Args:
        gradients: `[N, P]`.
        steps: past differences of the parameters, oldest first, each `[N, P]`; a row of zeros marks a pair that is left out.
        changes: the differences of the gradients for the same steps, each `[N, P]`.
    """
    direction = -gradients
    weights = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        curvature = (step * change).sum(1, keepdim=True)
        inverse = torch.where(curvature > 0, 1 / curvature, 0.0)
        weight = inverse * (step * direction).sum(1, keepdim=True)
        direction = direction - weight * change
        weights.append((weight, inverse))
    scale = torch.ones_like(gradients[:, :1])
    for step, change in zip(steps, changes, strict=True):
        squares = change.square().sum(1, keepdim=True)
        scale = torch.where(squares > 0, (step * change).sum(1, keepdim=True) / squares, scale)
    direction = direction * scale
    for (step, change), (weight, inverse) in zip(zip(steps, changes, strict=True), reversed(weights), strict=True):
        direction = direction + step * (weight - inverse * (change * direction).sum(1, keepdim=True))
    return direction
