"""The state of a training and its one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from daso.constraints import check_device
from daso.errors import OptionError, RunError
from daso.methods.method import Batch, Method, Step
from daso.nets.ema import MovingAverage
from daso.nets.network import Network
from daso.train.options import TrainOptions, base_learning_rate, learning_rate
from daso.train.step.cuda_graph import RecordedStep, check_recordable
from daso.train.step.optimizer import (
    expected_shapes,
    is_optimizer_state,
    load_optimizer,
    make_optimizer,
    optimizer_state,
)
from daso.train.step.sampling import derive_seed

Outcome = tuple[Step, Tensor]
"""What the method returned, and the total loss."""


def choose_device(name: str) -> torch.device:
    """Return the device called *name*; ``"auto"`` is the first accelerator there is, or the CPU.

    Raises:
        OptionError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    check_device("device", name)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f"device {name!r} cannot be used here: {reason}; use --device cpu or auto"
        ) from error
    return device


class Training:
    """Network, moving average, method and optimiser, and how far they are.

    Args:
        network: on its device.
        method: on the same device.
        options: schedule, optimiser, precision.

    Attributes:
        step: training steps done.
        seconds: spent in training so far, earlier processes of a resumed run included.
        rate_factor: of the learning rate; below 1 once a run has been rolled back.
        sums: what was counted since the last rows (see ``daso.train.step.record``), a part of the state.

    Raises:
        OptionError: the step shall be recorded and cannot be.
    """

    def __init__(self, network: Network, method: Method, options: TrainOptions) -> None:
        self._device = next(network.parameters()).device
        if options.cuda_graph:
            check_recordable(method, self._device, network.processes is not None)
        self.network = network
        self.average = MovingAverage(network, options.ema_decay)
        self.method = method
        self.options = options
        self.base_rate = base_learning_rate(options, method.learning_rate)
        self.schedule = options.schedule or method.schedule
        self.optimizer = make_optimizer(network, options, self.base_rate)
        self._forward: Callable[[Network, Network, Batch], Step] = (
            torch.compile(method, fullgraph=True) if options.compile else method
        )
        # A recorded step reads numbers that change from a tensor.
        self._averaging: Tensor | float = (
            torch.ones((), device=self._device) if options.cuda_graph else 1.0
        )
        self._begin_recording()
        self.step = 0
        self.seconds = 0.0
        self.rate_factor = 1.0
        self.sums: dict[str, Tensor] = {}

    def _begin_recording(self) -> None:
        """Record the step anew, if at all: tensors of the state are at other places."""
        self._run: Callable[[Batch], Outcome] = (
            RecordedStep(self._update) if self.options.cuda_graph else self._update
        )

    def rate_of(self, step: int) -> float:
        """Return the learning rate of step *step*, counted from 0."""
        return self.rate_factor * learning_rate(
            self.schedule, self.base_rate, step, self.options.steps
        )

    def advance(self, batch: Batch) -> Outcome:
        """Train one step on a batch; return what the method returned and the total loss, on the device.

        What is returned counts until the next call: a recorded step writes into the same tensors every time.
        """
        # Whatever a network draws (dropout) or a method of one's own is a function of the seed and the step.
        _seed(derive_seed(self.options.seed, "method", self.step), self._device)
        rate = self.rate_of(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = _renewed(group["lr"], group["factor"] * rate)
        self._averaging = _renewed(self._averaging, self.average.share(self.step))
        self.method.begin_step(self.step)
        outcome = self._run(batch)
        self.step += 1
        return outcome

    def _update(self, batch: Batch) -> Outcome:
        """Do the work of a step, all of it on the device and the same in every step."""
        self.network.train()
        self.average.network.train(self.method.teacher_uses_batch_statistics)
        result = self._forward(self.network, self.average.network, batch)
        total = torch.stack(list(result.losses.values())).sum()
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.network.sum_gradients()
        self.optimizer.step()
        self.average.move(self._averaging)
        # Without the graph of the backward pass, which would live on into the next step.
        return result._replace(
            losses={n: loss.detach() for n, loss in result.losses.items()}
        ), total.detach()

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Return a number, on the device, that is not finite if the last update broke the weights.

        A gradient that is not finite stays so on its way down to the first layer, whose weights are looked at.
        """
        return next(p for p in self.network.parameters() if p.requires_grad).sum()

    @torch.no_grad()
    def broken(self) -> list[str]:
        """Return the names of the tensors of the state that hold a NaN or an infinity; waits for the device."""
        floating = {
            name: value
            for name, value in self.tensors().items()
            if value.is_floating_point() and value.numel() and not name.startswith("record.")
        }
        if bool(get_total_norm(list(floating.values())).isfinite()):
            return []  # by far the fastest way to see it; finite numbers beyond 1e19 are looked at below
        return [name for name, value in floating.items() if not bool(value.isfinite().all())]

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, not copied."""
        return dict(self._named_tensors())

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        modules = {"network": self.network, "average": self.average.network, "method": self.method}
        for prefix, module in modules.items():
            for name, value in module.state_dict().items():
                yield f"{prefix}.{name}", value
        for name, parameter in self.network.named_parameters():
            yield from optimizer_state(self.optimizer, name, parameter).items()
        for name, value in self.sums.items():
            yield f"record.{name}", value

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], step: int, seconds: float) -> None:
        """Take over a saved state.

        Raises:
            RunError: the tensors are not those of this network and method.
        """

        def is_apart(name: str) -> bool:
            return name.startswith("record.") or is_optimizer_state(name)

        own = {name: value for name, value in self.tensors().items() if not is_apart(name)}
        sums = {n.removeprefix("record."): v for n, v in tensors.items() if n.startswith("record.")}
        kept = {n: v for n, v in tensors.items() if is_optimizer_state(n)}
        given = {n: v for n, v in tensors.items() if not is_apart(n)}
        parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        moved = expected_shapes(self.optimizer, parameters) if step else {}
        wrong = sorted((own.keys() ^ given.keys()) | (kept.keys() ^ moved.keys()))
        wrong += [name for name in kept.keys() & moved.keys() if kept[name].shape != moved[name]]
        wrong += [
            name for name in own.keys() & given.keys() if own[name].shape != given[name].shape
        ]
        if wrong:
            raise RunError(
                f"the checkpoint is of another configuration: {len(wrong)} tensors differ in name or shape, "
                f"the first is {wrong[0]!r}"
            )
        for name, value in own.items():
            value.copy_(given[name])
        load_optimizer(self.optimizer, parameters, kept)
        self._begin_recording()
        self.step, self.seconds, self.sums = step, seconds, sums


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws on a device, and on the host."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed also notes for a GPU to come who called it
    else:
        torch.manual_seed(seed)


def _renewed(number: Tensor | float, value: float) -> Tensor | float:
    """Return *value*, in the same tensor where the number is in one."""
    return number.fill_(value) if isinstance(number, Tensor) else value
