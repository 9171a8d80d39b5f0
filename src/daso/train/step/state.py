"""The state of a training and its single step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from daso.constraints import check_device
from daso.errors import OptionError, RunError, first_line
from daso.evaluate.predict import represent_in_batches
from daso.methods.method import Batch, Method, Step
from daso.nets.ema import MovingAverage
from daso.nets.network import Network
from daso.train.options import TrainOptions, base_learning_rate, learning_rate
from daso.train.step.cuda_graph import RecordedStep, check_recordable
from daso.train.step.optimizer import (
    PREFIXES,
    expected_shapes,
    load_optimizer,
    make_optimizer,
    optimizer_state,
)
from daso.train.step.sampling import derive_seed

Outcome = tuple[Step, Tensor]
"""The result of the method, and the total loss."""


def choose_device(name: str) -> torch.device:
    """Return the device called *name*; ``"auto"`` is the first accelerator, or the CPU.

    Raises:
        OptionError: the device does not exist here.
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
        raise OptionError(
            f"device {name!r} is not available here: {first_line(error)}; use --device cpu or auto"
        ) from error
    return device


class Training:
    """Network, moving average, method and optimizer, and how far they are.

    Attributes:
        seconds: time spent in training, including earlier processes of a resumed run.
        rate_factor: factor of the learning rate; below 1 after a rollback.
        sums: counts since the last rows (see ``daso.train.step.record``), a part of the state.
        represent: yields the features of images that the moving average classifies; see
            ``represent_in_batches``.
        answers: logits of the measured images by the moving average as it is now, by pool; None
            until they are computed (see ``daso.train.evaluation``).

    Raises:
        OptionError: the options ask for a CUDA graph and the step cannot be recorded.
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
        self._forward: Callable[[Network, Network, Batch], Step] = method
        if options.compile:
            self._forward = torch.compile(method, fullgraph=True)
        self._averaging: Tensor | float = 1.0
        if options.cuda_graph:  # a recorded step reads changing numbers from tensors
            self._averaging = torch.ones((), device=self._device)
        self._start_recording()
        self.step = 0
        self.seconds = 0.0
        self.rate_factor = 1.0
        self.sums: dict[str, Tensor] = {}
        self.represent: Callable[..., Iterator[Tensor]] = represent_in_batches
        self.answers: Mapping[str, Tensor] | None = None

    def _start_recording(self) -> None:
        self._run: Callable[[Batch], Outcome] = (
            RecordedStep(self._update) if self.options.cuda_graph else self._update
        )

    def rate_of(self, step: int) -> float:
        rate = learning_rate(self.schedule, self.base_rate, step, self.options.steps)
        return self.rate_factor * rate

    def advance(self, batch: Batch) -> Outcome:
        """Train one step on a batch; return the method's result and the total loss, on the device.

        The result is valid until the next call: a recorded step reuses its tensors.
        """
        # What a network (dropout) or a custom method draws depends on the seed and the step only.
        # On a CPU, torch.manual_seed would seed lazily initialized accelerators, which takes time.
        on_cpu = self._device.type == "cpu"
        seed = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
        seed(derive_seed(self.options.seed, "method", self.step))
        rate = self.rate_of(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = _renewed(group["lr"], group["factor"] * rate)
        self._averaging = _renewed(self._averaging, self.average.share(self.step))
        self.method.begin_step(self.step)
        outcome = self._run(batch)
        self.answers = None
        self.step += 1
        return outcome

    def _update(self, batch: Batch) -> Outcome:
        """Run a step entirely on the device, with the same work in every step."""
        self.network.train()
        self.average.network.train(self.method.teacher_uses_batch_statistics)
        result = self._forward(self.network, self.average.network, batch)
        total = torch.stack(list(result.losses.values())).sum()
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.network.sum_gradients()
        self.optimizer.step()
        self.average.move(self._averaging)
        self.method.end_step(self.network, self.average.network, batch)
        # Detached: the graph of the backward pass must not live on into the next step.
        losses = {name: loss.detach() for name, loss in result.losses.items()}
        return result._replace(losses=losses), total.detach()

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Return a scalar, on the device, that is not finite if the last update broke the weights.

        A gradient that is not finite reaches the first layer, whose weights are summed.
        """
        return next(p for p in self.network.parameters() if p.requires_grad).sum()

    @torch.no_grad()
    def broken(self) -> list[str]:
        """Return the names of state tensors that hold NaN or infinity; waits for the device."""
        state = {n: v for n, v in self.tensors().items() if not n.startswith("record.")}
        floating = {n: v for n, v in state.items() if v.is_floating_point() and v.numel()}
        if bool(get_total_norm(list(floating.values())).isfinite()):
            return []  # the fast way; finite values beyond 1e19 need the slow one
        return [name for name, value in floating.items() if not bool(value.isfinite().all())]

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, not copied."""
        modules = {"network": self.network, "average": self.average.network, "method": self.method}
        tensors = {
            f"{prefix}.{name}": value
            for prefix, module in modules.items()
            for name, value in module.state_dict().items()
        }
        for name, parameter in self.network.named_parameters():
            tensors |= optimizer_state(self.optimizer, name, parameter)
        return tensors | {f"record.{name}": value for name, value in self.sums.items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], step: int, seconds: float) -> None:
        """Load a saved state; raise a ``RunError`` if it does not fit."""
        sums = {n.removeprefix("record."): v for n, v in tensors.items() if n.startswith("record.")}
        saved = {n: v for n, v in tensors.items() if not n.startswith("record.")}
        of_modules = {
            n: v for n, v in self.tensors().items() if not n.startswith(("record.", *PREFIXES))
        }
        parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        shapes = {name: value.shape for name, value in of_modules.items()}
        shapes |= expected_shapes(self.optimizer, parameters) if step else {}
        saved_shapes = {name: value.shape for name, value in saved.items()}
        wrong = sorted(shapes.keys() ^ saved_shapes.keys())
        wrong += [n for n, shape in shapes.items() if saved_shapes.get(n, shape) != shape]
        if wrong:
            count = f"{len(wrong)} tensors differ in name or shape, the first is {wrong[0]!r}"
            raise RunError(f"the checkpoint is of another configuration: {count}")
        for name, value in of_modules.items():
            value.copy_(saved[name])
        load_optimizer(self.optimizer, parameters, saved)
        self._start_recording()  # tensors of the state have moved
        self.step, self.seconds, self.sums, self.answers = step, seconds, sums, None


def _renewed(number: Tensor | float, value: float) -> Tensor | float:
    return number.fill_(value) if isinstance(number, Tensor) else value
