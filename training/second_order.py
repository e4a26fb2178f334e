"""Optimizers that look at curvature, for full batches or large ones.

Symbols: N networks in a stack (1 for a plain model), P parameters of one, E equations (batch times outputs), J the Jacobian of the outputs
`[E, P]`, r the residuals `[E]`.
"""

from __future__ import annotations

import warnings

import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from foundations.errors import ConfigError

DENSE_PARAMETERS = 4000  # up to here J'J is formed and factored; beyond, conjugate gradients use products with J alone
CHUNK_VALUES = 2**23  # of J that are held at a time
CG_ITERATIONS = 300
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e-14, 1e6
BACKTRACKS, ARMIJO, CURVATURE = 25, 1e-4, 1e-10
FLOOR = 4.0  # root mean square residuals of this many units of rounding are as good as none


class LBFGS(torch.optim.Optimizer):
    """Limited-memory BFGS (Nocedal 1980) for a stack of networks, each with its own curvature and step.

    The networks of a stack share every forward and backward pass and nothing else: directions come from each network's own history, and
    each backtracks by itself until its loss falls enough (Armijo). A pair of differences with too little curvature is left out of a
    network's history. `spent` becomes true when no network finds a lower loss any more.

    Args:
        model: a plain model, or students.
        lr: the first trial step along a direction; 1 is right once there is a history.
        history: how many pairs are kept.
    """

    def __init__(self, model: torch.nn.Module, lr: float = 1.0, history: int = 20):
        super().__init__([parameter for parameter in model.parameters() if parameter.requires_grad], {"lr": lr, "history": history})
        self.networks = getattr(model, "networks", 1)
        self.spent = False
        self._seen = None, None, None  # the batch of the last step, and the losses and gradients on it at the present parameters

    @torch.no_grad()
    def step(self, closure) -> torch.Tensor:
        """Takes one step on the batch of a closure (`training.train.Objective`) and returns the loss before it."""
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        steps, changes = state.get("steps", []), state.get("changes", [])
        if closure.examples is not self._seen[0]:
            self._seen = closure.examples, *self._evaluate(closure)
        _, losses, gradients = self._seen
        here = self._flat(group["params"])
        direction = two_loop(gradients, steps, changes)
        slopes = (direction * gradients).sum(1)
        uphill = slopes >= 0
        direction[uphill], slopes[uphill] = -gradients[uphill], -gradients[uphill].square().sum(1)
        rates = group["lr"] * (torch.ones_like(losses) if steps else (1 / gradients.norm(dim=1)).clamp(max=1.0))
        accepted, there, new_losses, new_gradients = self._search(closure, here, losses, gradients, direction, slopes, rates)
        self._write(group["params"], there)
        self._seen = closure.examples, new_losses, new_gradients
        self.spent = self.spent or (not steps and not bool(accepted.any()))
        step, change = there - here, new_gradients - gradients
        keep = accepted[:, None]  # a network that found nothing forgets its history and begins again with its gradient
        curved = keep & ((step * change).sum(1) > CURVATURE * step.norm(dim=1) * change.norm(dim=1))[:, None]
        if bool(accepted.any()):
            state["steps"] = [*(old * keep for old in steps), step * curved][-group["history"] :]
            state["changes"] = [*(old * keep for old in changes), change * curved][-group["history"] :]
        else:
            state["steps"], state["changes"] = [], []
        return losses.sum()

    def _search(self, closure, here, losses, gradients, direction, slopes, rates):
        """Backtracks each network by itself until its loss falls enough; those that find no such place stay where they are.

        Returns:
            Which networks have moved `[N]`, and all parameters `[N, P]`, losses `[N]` and gradients `[N, P]` after that.
        """
        accepted = torch.zeros_like(losses, dtype=torch.bool)
        there, new_losses, new_gradients = here.clone(), losses.clone(), gradients.clone()
        for _ in range(BACKTRACKS):
            trial = torch.where(accepted[:, None], there, here + rates[:, None] * direction)
            self._write(self.param_groups[0]["params"], trial)
            trial_losses, trial_gradients = self._evaluate(closure)
            good = ~accepted & (trial_losses < losses) & (trial_losses <= losses + ARMIJO * rates * slopes)
            there[good], new_losses[good], new_gradients[good] = trial[good], trial_losses[good], trial_gradients[good]
            accepted |= good
            if bool(accepted.all()):
                break
            rates = torch.where(accepted, rates, rates / 2)
        return accepted, there, new_losses, new_gradients

    @torch.enable_grad()
    def _evaluate(self, closure) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss `[N]` and the gradient `[N, P]` of each network."""
        outputs = closure.model(closure.examples)
        if hasattr(closure.model, "individual_losses"):
            losses = closure.model.individual_losses(outputs, closure.labels)
        else:
            losses = closure.model.loss_criterion(outputs, closure.labels)[None]
        gradients = torch.autograd.grad(losses.sum(), self.param_groups[0]["params"])
        return losses.detach(), self._flat(gradients)

    def _flat(self, tensors) -> torch.Tensor:
        return torch.cat([tensor.reshape(self.networks, -1) for tensor in tensors], 1)

    def _write(self, parameters: list[torch.Tensor], flat: torch.Tensor) -> None:
        sizes = [parameter.numel() // self.networks for parameter in parameters]
        for parameter, part in zip(parameters, flat.split(sizes, 1), strict=True):
            parameter.copy_(part.reshape(parameter.shape))


def two_loop(gradients: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor]) -> torch.Tensor:
    """The quasi-Newton direction `-H g` of each network, `[N, P]` (the two-loop recursion of Nocedal 1980).

    Args:
        gradients: `[N, P]`.
        steps: past differences of the parameters, oldest first, each `[N, P]`; a row of zeros is a pair left out.
        changes: the differences of the gradients that belong to them.
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


class LevenbergMarquardt(torch.optim.Optimizer):
    """Damped Gauss-Newton: each step solves `(J'J + damping * diag(J'J)) d = J'r` on its batch (Levenberg 1944, Marquardt 1963).

    The damping falls tenfold after a step that lowers the loss and rises tenfold until one does. `spent` becomes true when none does, or
    when the residuals are at the rounding floor. Converges quadratically where the residuals vanish at the solution.

    Args:
        model: a network whose loss is the mean squared error.
        lr: the share of each step that is taken.
    """

    def __init__(self, model: torch.nn.Module, lr: float = 1.0):
        super().__init__([parameter for parameter in model.parameters() if parameter.requires_grad], {"lr": lr, "damping": FIRST_DAMPING})
        self.model = model
        self.spent = False

    def step(self, closure) -> torch.Tensor:
        """Takes one step on the batch of a closure (`training.train.Objective`) and returns the loss before it."""
        if not closure.labels.is_floating_point():
            raise ConfigError("--optimizer_name: levenberg_marquardt minimises squared errors; class labels need sgd or adam")
        group = self.param_groups[0]
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        problem = _LeastSquares(self.model, names, closure.examples, closure.labels)
        with torch.no_grad():
            here = torch.cat([parameter.flatten() for parameter in group["params"]])
            residuals = problem.residuals(here)
            loss = residuals.square().mean()
            floor = FLOOR * torch.finfo(here.dtype).eps * closure.labels.square().mean().sqrt()
            self.spent = self.spent or bool(loss.sqrt() <= floor)
            if not self.spent:
                self._descend(problem, here, residuals, loss, group)
        return loss

    def _descend(self, problem: _LeastSquares, here: torch.Tensor, residuals: torch.Tensor, loss: torch.Tensor, group: dict) -> None:
        solve = problem.solver(here, residuals)
        damping = group["damping"]
        while damping <= MOST_DAMPING:
            direction = solve(damping)
            if direction is not None:
                there = here - group["lr"] * direction
                if problem.residuals(there).square().mean() < loss:
                    torch.nn.utils.vector_to_parameters(there, group["params"])
                    group["damping"] = max(damping / 10, LEAST_DAMPING)
                    return
            damping *= 10
        self.spent = True


class _LeastSquares:
    """The residuals of a network on a batch as a function of its parameters, flattened to one vector `[P]`."""

    def __init__(self, model: torch.nn.Module, names: list[str], examples: torch.Tensor, labels: torch.Tensor):
        self.model, self.names, self.examples, self.labels = model, names, examples, labels
        shapes = dict(model.named_parameters())
        self.shapes = [shapes[name].shape for name in names]
        self.sizes = [shape.numel() for shape in self.shapes]

    def outputs(self, parameters: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        """The network's outputs with the given parameters."""
        parts = (part.view(shape) for part, shape in zip(parameters.split(self.sizes), self.shapes, strict=True))
        return functional_call(self.model, dict(zip(self.names, parts, strict=True)), (examples,))

    def residuals(self, parameters: torch.Tensor) -> torch.Tensor:
        """Outputs minus labels, `[E]`."""
        return (self.outputs(parameters, self.examples) - self.labels).flatten()

    def solver(self, parameters: torch.Tensor, residuals: torch.Tensor):
        """A function from damping to the step `[P]`, or to None where the system is singular in this precision."""
        if parameters.numel() <= DENSE_PARAMETERS:
            return self._dense_solver(parameters, residuals)
        return self._iterative_solver(parameters, residuals)

    def _dense_solver(self, parameters: torch.Tensor, residuals: torch.Tensor):
        count = parameters.numel()
        jacobian = vmap(jacrev(lambda vector, example: self.outputs(vector, example[None])[0]), (None, 0))
        curvature, gradient = parameters.new_zeros(count, count), parameters.new_zeros(count)
        outputs = self.labels.shape[1]
        chunk = max(1, CHUNK_VALUES // (count * outputs))
        for examples, errors in zip(self.examples.split(chunk), residuals.split(chunk * outputs), strict=True):
            rows = jacobian(parameters, examples).flatten(0, 1)
            curvature.addmm_(rows.T, rows)
            gradient.addmv_(rows.T, errors)
        diagonal = curvature.diagonal()
        scale = torch.maximum(diagonal, torch.finfo(diagonal.dtype).eps * diagonal.max())

        def solve(damping: float) -> torch.Tensor | None:
            factor, failed = torch.linalg.cholesky_ex(curvature + torch.diag(damping * scale))
            return None if failed else torch.cholesky_solve(gradient[:, None], factor)[:, 0]

        return solve

    def _iterative_solver(self, parameters: torch.Tensor, residuals: torch.Tensor):
        def forward(vector):
            return self.outputs(vector, self.examples).flatten()

        _, transposed = vjp(forward, parameters)
        gradient = transposed(residuals)[0]
        with warnings.catch_warnings():  # torch's own first use of jvp warns of a deprecation inside torch
            warnings.simplefilter("ignore", FutureWarning)
            probe = jvp(forward, (parameters,), (gradient / gradient.norm(),))[1].square().sum()

        def solve(damping: float) -> torch.Tensor:
            def product(vector):
                return transposed(jvp(forward, (parameters,), (vector,))[1])[0] + damping * probe * vector

            return conjugate_gradients(product, gradient, CG_ITERATIONS)

        return solve


def conjugate_gradients(product, right: torch.Tensor, iterations: int) -> torch.Tensor:
    """Solves `A x = right` for a symmetric positive definite A that is given as a product with vectors (Hestenes & Stiefel 1952).

    Args:
        product: maps x `[P]` to A x.
        right: the right-hand side `[P]`.
        iterations: how many products at most; fewer when the residual has fallen to rounding.
    """
    solution, residual, direction = torch.zeros_like(right), right.clone(), right.clone()
    energy = first = residual @ residual
    for _ in range(iterations):
        if energy <= first * torch.finfo(right.dtype).eps ** 2:
            break
        image = product(direction)
        rate = energy / (direction @ image)
        solution += rate * direction
        residual -= rate * image
        energy, before = residual @ residual, energy
        direction = residual + (energy / before) * direction
    return solution
