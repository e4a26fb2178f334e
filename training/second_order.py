"""Second-order optimizers, for full or large batches.

Symbols: N networks in a stack (1 for a plain model), P parameters of one, E equations (batch times outputs), J the Jacobian of the outputs
`[E, P]`, r the residuals `[E]`.
"""

from __future__ import annotations

import warnings

import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from foundations.errors import ConfigError
from platforms.platform import get_platform

DENSE_PARAMETERS = 4000  # up to here J'J is formed and factored; beyond, conjugate gradients use products with J alone
CHUNK_VALUES = 2**23  # values of J in memory at a time
CG_ITERATIONS = 300
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e-14, 1e6
BACKTRACKS, ARMIJO, CURVATURE = 25, 1e-4, 1e-10
FLOOR = 4.0  # root mean square residuals below this many units of rounding count as zero


class SecondOrder(torch.optim.Optimizer):
    """An optimizer that uses curvature, over all parameters of a model that need a gradient.

    Attributes:
        converged: whether the optimizer cannot reduce the loss any more. Once true, it stays true, and training ends.
    """

    converged: bool

    def __init__(self, model: torch.nn.Module, defaults: dict[str, object]):
        super().__init__([parameter for parameter in model.parameters() if parameter.requires_grad], defaults)
        self.converged = False


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
        # the batch of the last step, and the losses and gradients on it at the current parameters
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @torch.no_grad()
    def step(self, closure) -> torch.Tensor:
        """Takes one step on the batch of a closure (`training.train.Objective`) and returns the loss before it."""
        group = self.param_groups[0]
        state = self.state[group["params"][0]]
        steps, changes = state.get("steps", []), state.get("changes", [])
        if self._last is None or closure.examples is not self._last[0]:
            self._last = closure.examples, *self._evaluate(closure)
        _, losses, gradients = self._last
        here = self._flat(group["params"])
        direction = two_loop(gradients, steps, changes)
        slopes = (direction * gradients).sum(1)
        uphill = slopes >= 0
        direction[uphill], slopes[uphill] = -gradients[uphill], -gradients[uphill].square().sum(1)
        rates = group["lr"] * (torch.ones_like(losses) if steps else (1 / gradients.norm(dim=1)).clamp(max=1.0))
        accepted, there, new_losses, new_gradients = self._search(closure, here, losses, gradients, direction, slopes, rates)
        self._write(group["params"], there)
        self._last = closure.examples, new_losses, new_gradients
        (moved,) = get_platform().any_process(bool(accepted.any()))
        self.converged = self.converged or (not steps and not moved)
        step, change = there - here, new_gradients - gradients
        keep = accepted[:, None]  # a network without a step discards its history and restarts with its gradient
        curved = keep & ((step * change).sum(1) > CURVATURE * step.norm(dim=1) * change.norm(dim=1))[:, None]
        if moved:
            state["steps"] = [*(old * keep for old in steps), step * curved][-group["history"] :]
            state["changes"] = [*(old * keep for old in changes), change * curved][-group["history"] :]
        else:
            state["steps"], state["changes"] = [], []
        return losses.sum()

    def _search(self, closure, here, losses, gradients, direction, slopes, rates):
        """Backtracks each network separately until its loss falls enough; a network without such a step keeps its parameters.

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


class LevenbergMarquardt(SecondOrder):
    """Damped Gauss-Newton: each step solves `(J'J + damping * diag(J'J)) d = J'r` on its batch (Levenberg 1944, Marquardt 1963).

    Each network of a stack has its own curvature, damping and step. The damping rises tenfold until a step lowers the loss, and falls
    tenfold after that step. A network has converged when no damping gives a lower loss, or when its residuals are at rounding level; the
    optimizer has converged when all networks have. Convergence is quadratic where the residuals vanish at the solution.

    With a ridge, a step minimises the loss plus a penalty on the squares of the weights, biases excepted. The penalty starts each step at a
    share of the loss, so that it vanishes together with the residuals.

    Args:
        model: a plain model, or students, whose loss is the mean squared error.
        lr: the factor by which each step is multiplied.
        ridge: the penalty before a step, as a share of the loss.
    """

    def __init__(self, model: torch.nn.Module, lr: float = 1.0, ridge: float = 0.0):
        super().__init__(model, {"lr": lr, "damping": [FIRST_DAMPING] * getattr(model, "networks", 1)})
        self.model, self.ridge = model, ridge

    @torch.no_grad()
    def step(self, closure) -> torch.Tensor:
        """Takes one step on the batch of a closure (`training.train.Objective`) and returns the loss before it."""
        if not closure.labels.is_floating_point():
            raise ConfigError(
                "--optimizer_name: levenberg_marquardt minimises squared errors, not the loss of class labels; valid here: sgd, adam, lbfgs"
            )
        group = self.param_groups[0]
        problem = _LeastSquares(self.model, closure.examples, closure.labels)
        here = problem.gather(group["params"])
        residuals = problem.residuals(here)
        losses = residuals.square().mean(1)
        floor = FLOOR * torch.finfo(here.dtype).eps * closure.labels.square().mean().sqrt()
        damping = torch.tensor(group["damping"], dtype=torch.float64, device=here.device)
        moving = (losses.sqrt() > floor) & (damping <= MOST_DAMPING)
        if bool(moving.any()):
            squares = (problem.weights * here.square()).sum(1, keepdim=True)
            penalty = torch.where(squares > 0, self.ridge * losses[:, None] / squares, 0.0) * problem.weights
            descent = _Descent(problem, here[moving], residuals[moving], penalty[moving], problem.free[moving])
            here[moving], damping[moving] = descent.step(damping[moving], group["lr"])
        problem.scatter(here, group["params"])
        group["damping"] = damping.tolist()
        (going_on,) = get_platform().any_process(bool((moving & (damping <= MOST_DAMPING)).any()))
        self.converged = self.converged or not going_on
        return losses.sum()


class _Descent:
    """A step of n networks to a smaller sum of loss and penalty.

    Args:
        problem: the least-squares problem.
        here: the parameters of the networks, `[n, P]`.
        residuals: at these parameters, `[n, E]`.
        penalty: on the square of each parameter, `[n, P]`.
        free: 0 for pruned weights and 1 for the others, `[n, P]`.
    """

    def __init__(self, problem: _LeastSquares, here: torch.Tensor, residuals: torch.Tensor, penalty: torch.Tensor, free: torch.Tensor):
        self.problem, self.here, self.penalty = problem, here, penalty
        self.objective = residuals.square().mean(1) + (penalty * here.square()).sum(1)
        self.solve = problem.solver(here, residuals, penalty * residuals.shape[1], free)

    def step(self, damping: torch.Tensor, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the step.

        Args:
            damping: the first damping of each network, `[n]`.
            lr: the factor by which each step is multiplied.

        Returns:
            The new parameters `[n, P]` and dampings `[n]`. If no step makes the sum smaller, the parameters of a network do not change and
            its damping is above MOST_DAMPING.
        """
        there, damping = self.here.clone(), damping.clone()
        pending = torch.arange(len(there), device=there.device)
        while len(pending):
            trial = self.here[pending] - lr * self.solve(pending, damping[pending].to(there.dtype))
            reached = self.problem.residuals(trial).square().mean(1) + (self.penalty[pending] * trial.square()).sum(1)
            better = reached < self.objective[pending]  # false for the NaN of a singular system
            there[pending[better]] = trial[better]
            damping[pending] = torch.where(better, (damping[pending] / 10).clamp_min(LEAST_DAMPING), damping[pending] * 10)
            pending = pending[~better & (damping[pending] <= MOST_DAMPING)]
        return there, damping


class _LeastSquares:
    """The residuals of networks on a batch, as a function of their parameters: a row `[P]` for each of n networks of a stack.

    `free` `[N, P]` is 0 for pruned weights and 1 for the others. J has no columns for pruned weights. `weights` `[N, P]` is 0 for biases
    and 1 for weights.
    """

    def __init__(self, model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor):
        self.examples, self.labels = examples, labels
        self.stack = hasattr(model, "networks")
        select = getattr(model, "select", None)
        self.network: torch.nn.Module = select(0) if self.stack and select is not None else model
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        shapes = dict(self.network.named_parameters())
        self.shapes = [shapes[name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]
        mask, parameters = getattr(model, "mask", {}), [parameter for parameter in model.parameters() if parameter.requires_grad]
        left = [torch.as_tensor(mask.get(name, 1)).to(each).expand_as(each) for name, each in zip(self.names, parameters, strict=True)]
        self.free = self.gather(left)
        self.weights = self.gather(
            [torch.full_like(each, float(name.endswith("weight"))) for name, each in zip(self.names, parameters, strict=True)]
        )

    def gather(self, parameters: list[torch.Tensor]) -> torch.Tensor:
        """The parameters of all networks, `[N, P]`."""
        count = len(parameters[0]) if self.stack else 1
        return torch.cat([parameter.reshape(count, -1) for parameter in parameters], 1)

    def scatter(self, rows: torch.Tensor, parameters: list[torch.Tensor]) -> None:
        """Writes the parameters of all networks, `[N, P]`, to the tensors of `parameters`: the inverse of `gather`."""
        for parameter, part in zip(parameters, rows.split(self.sizes, 1), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def outputs(self, row: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        """The outputs `[B, O]` of the network with the parameters `[P]`."""
        parts = (part.view(shape) for part, shape in zip(row.split(self.sizes), self.shapes, strict=True))
        outputs = functional_call(self.network, dict(zip(self.names, parts, strict=True)), (examples,))
        return outputs[0] if self.stack else outputs

    def residuals(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs minus labels of some networks, `[n, E]`."""
        return (vmap(self.outputs, (0, None))(rows, self.examples) - self.labels).flatten(1)

    def solver(self, rows: torch.Tensor, residuals: torch.Tensor, penalty: torch.Tensor, free: torch.Tensor):
        """A function from the indices of m of the n networks and their dampings `[m]` to their steps `[m, P]`.

        The steps are those of the sum of squared residuals plus `penalty` `[n, P]` times the squares of the parameters; `free` is `[n, P]`.
        """
        if rows.shape[1] <= DENSE_PARAMETERS:
            return self._dense_solver(rows, residuals, penalty, free)
        return self._iterative_solver(rows, residuals, penalty, free)

    def normal_equations(self, rows: torch.Tensor, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """J'J `[n, P, P]` and J'r `[n, P, 1]`, summed over parts of the batch."""
        networks, count = rows.shape
        jacobian = vmap(vmap(jacrev(lambda row, example: self.outputs(row, example[None])[0]), (None, 0)), (0, None))
        curvature, gradient = rows.new_zeros(networks, count, count), rows.new_zeros(networks, count, 1)
        outputs = self.labels.shape[1]
        chunk = max(1, CHUNK_VALUES // (networks * count * outputs))
        for examples, errors in zip(self.examples.split(chunk), residuals.split(chunk * outputs, 1), strict=True):
            slopes = jacobian(rows, examples).flatten(1, 2)
            curvature.baddbmm_(slopes.mT, slopes)
            gradient.baddbmm_(slopes.mT, errors[:, :, None])
        return curvature, gradient

    def _dense_solver(self, rows: torch.Tensor, residuals: torch.Tensor, penalty: torch.Tensor, free: torch.Tensor):
        curvature, gradient = self.normal_equations(rows, residuals)
        curvature.diagonal(dim1=1, dim2=2).add_(penalty)
        gradient.add_((penalty * rows)[:, :, None])
        curvature.mul_(free[:, :, None]).mul_(free[:, None, :])
        gradient.mul_(free[:, :, None])
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        scale = torch.maximum(diagonal, torch.finfo(diagonal.dtype).eps * diagonal.amax(1, keepdim=True))

        def solve(which: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
            factor, failed = torch.linalg.cholesky_ex(curvature[which] + torch.diag_embed(damping[:, None] * scale[which]))
            steps = torch.cholesky_solve(gradient[which], factor)[:, :, 0]
            return torch.where(failed[:, None] > 0, torch.nan, steps)

        return solve

    def _iterative_solver(self, rows: torch.Tensor, residuals: torch.Tensor, penalty: torch.Tensor, free: torch.Tensor):
        """Solves for one network at a time: beyond DENSE_PARAMETERS the products of one network suffice to use the device fully."""
        products = [self._products(row, left) for row, left in zip(rows, free, strict=True)]
        gradients = [transposed(errors) for (_, transposed), errors in zip(products, residuals, strict=True)]
        gradients = [gradient + part for gradient, part in zip(gradients, penalty * rows * free, strict=True)]
        probes = [forward(g / g.norm()).square().sum() for (forward, _), g in zip(products, gradients, strict=True)]

        def step(network: int, damping: torch.Tensor) -> torch.Tensor:
            (forward, transposed), shift = products[network], damping * probes[network] + penalty[network] * free[network]
            return conjugate_gradients(lambda vector: transposed(forward(vector)) + shift * vector, gradients[network], CG_ITERATIONS)

        def solve(which: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
            return torch.stack([step(network, each) for network, each in zip(which.tolist(), damping, strict=True)])

        return solve

    def _products(self, row: torch.Tensor, free: torch.Tensor):
        """The maps v -> J v and e -> J'e of a network. J'e is 0 where `free` `[P]` is 0, and so is every sum of such vectors."""

        def forward(vector):
            return self.outputs(vector, self.examples).flatten()

        transposed = vjp(forward, row)[1]

        def along(vector):
            with warnings.catch_warnings():  # the first call of jvp warns of a deprecation inside torch
                warnings.simplefilter("ignore", FutureWarning)
                return jvp(forward, (row,), (vector,))[1]

        return along, lambda errors: transposed(errors)[0] * free


@torch.no_grad()
def curvature(model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """J'J of a plain network, `[P, P]`, in the order of its parameters."""
    problem = _LeastSquares(model, examples, labels)
    rows = problem.gather(list(model.parameters()))
    return problem.normal_equations(rows, problem.residuals(rows))[0][0]


def unit_curvature(model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """J'J with the columns of J at unit length, `[P, P]`, and these lengths, `[P]`, which are 1 where a column is zero."""
    square = curvature(model, examples, labels)
    lengths = square.diagonal().sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    return square / lengths[:, None] / lengths, lengths


def conjugate_gradients(product, right: torch.Tensor, iterations: int) -> torch.Tensor:
    """Solves `A x = right` for a symmetric positive definite A, using only products with A (Hestenes & Stiefel 1952).

    Args:
        product: maps x `[P]` to A x.
        right: the right-hand side `[P]`.
        iterations: the most products; the solver stops earlier if the residual is at rounding level.
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
