"""Optimizers that look at curvature. They minimise squared errors to the rounding floor.

Symbols: P parameters, E equations (batch times outputs), J the Jacobian of the outputs `[E, P]`, r the residuals `[E]`.
"""

from __future__ import annotations

import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from foundations.errors import ConfigError

DENSE_PARAMETERS = 4000  # up to here J'J is formed and factored; beyond, conjugate gradients use products with J alone
CHUNK_VALUES = 2**23  # of J that are held at a time
CG_ITERATIONS = 300
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e-14, 1e6
FLOOR = 4.0  # root mean square residuals of this many units of rounding are as good as none


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
            self.spent = bool(loss.sqrt() <= floor)
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
