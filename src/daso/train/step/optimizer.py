"""Optimizers, their parameter groups, and their state in a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import OptionError
from daso.lazy import quick
from daso.nets.layer_depth import depths_from_top
from daso.nets.network import Network
from daso.train.options import TrainOptions

STATE = {
    "sgd": {"momentum_buffer": "momentum"},
    "adamw": {"exp_avg": "first_moment", "exp_avg_sq": "second_moment", "step": "updates"},
}
"""State of each optimizer per parameter: torch's name and the name in a checkpoint."""
PREFIXES = tuple(f"{ours}." for names in STATE.values() for ours in names.values())
"""Beginnings of the names of an optimizer's state in a checkpoint."""


def parameter_groups(
    network: Network, options: TrainOptions, base_rate: float
) -> list[dict[str, Any]]:
    """Return groups of the trainable parameters, from the first layers to the heads.

    A group's ``factor`` multiplies the learning rate: 1 for heads; for the encoder
    ``backbone_rate`` over the base rate, times ``layer_decay`` to the power of the depth below the
    heads (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022). With AdamW, norms and
    biases do not decay.

    Raises:
        OptionError: ``layer_decay`` is set and the encoder has no recognizable blocks.
    """
    learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
    share = 1.0 if options.backbone_rate is None else options.backbone_rate / base_rate
    depths: dict[str, int] = {}
    if options.layer_decay < 1 and not network.encoder_is_frozen:
        from_top = depths_from_top(network.encoder)
        depths = {f"encoder.{name}": depth for name, depth in from_top.items()}

    groups: dict[tuple[int, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in learning.items():
        apart = name.startswith("encoder.") and share != 1
        decays = options.optimizer == "sgd" or parameter.dim() > 1
        groups.setdefault((depths.get(name, 0), apart, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": (share if apart else 1.0) * options.layer_decay**depth,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (depth, apart, decays), parameters in sorted(
            groups.items(), key=lambda item: item[0][:2], reverse=True
        )
    ]


def make_optimizer(
    network: Network, options: TrainOptions, base_rate: float
) -> torch.optim.Optimizer:
    """Return the optimizer of the options over ``parameter_groups``."""
    groups = parameter_groups(network, options, base_rate)
    if not groups:
        raise OptionError("the network has no trainable parameters")
    device = next(network.parameters()).device
    fused = device.type in ("cpu", "cuda")
    for group in groups:
        group["lr"] = torch.tensor(base_rate, device=device) if options.cuda_graph else base_rate
    if options.optimizer == "adamw":
        return quick(torch.optim.AdamW)(
            groups, betas=(options.momentum, 0.999), fused=fused, capturable=options.cuda_graph
        )
    return quick(torch.optim.SGD)(
        groups, momentum=options.momentum, nesterov=options.momentum > 0, fused=fused
    )


def _kept(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    if isinstance(optimizer, torch.optim.AdamW):
        return STATE["adamw"]
    return STATE["sgd"] if optimizer.defaults["momentum"] else {}


def optimizer_state(
    optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter
) -> dict[str, Tensor]:
    """Return the optimizer's state of the parameter called *name*; {} before its first step."""
    state = optimizer.state.get(parameter, {})
    return {f"{ours}.{name}": state[key] for key, ours in _kept(optimizer).items() if key in state}


def expected_shapes(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]
) -> dict[str, torch.Size]:
    """Return the shapes of an optimizer's state after its first step, by checkpoint names."""
    return {
        f"{ours}.{name}": torch.Size([]) if key == "step" else parameter.shape
        for name, parameter in parameters.items()
        for key, ours in _kept(optimizer).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    tensors: dict[str, Tensor],
) -> None:
    """Copy what ``optimizer_state`` returned into an optimizer."""
    for name, parameter in parameters.items():
        for key, ours in _kept(optimizer).items():
            value = tensors.get(f"{ours}.{name}")
            if value is not None:
                like = value if key == "step" else parameter
                copy = torch.empty_like(like, device=parameter.device)
                optimizer.state[parameter][key] = copy.copy_(value)
