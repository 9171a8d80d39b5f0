"""Activations computed again in the backward pass: the same gradients bit for bit, half of what is kept."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from daso.errors import OptionError
from daso.nets.encoders.resnet import ResNet
from daso.nets.encoders.small import SmallConvNet
from daso.nets.encoders.wrn import WideResNet
from daso.nets.recompute import recompute_activations

NETWORKS = {
    "wrn": lambda: WideResNet(10, 1),
    "resnet18": lambda: ResNet(18, 3, "small"),
    "resnet50": lambda: ResNet(50, 3, "large"),
    "small": lambda: SmallConvNet(8, 3),
}


def twins(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = NETWORKS[name]().to(memory_format=torch.channels_last)
    other = copy.deepcopy(plain)
    recompute_activations(other)
    return plain, other


def images(count: int = 6, side: int = 32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)


def gradients(
    network: nn.Module, x: Tensor, precision: str, backward_passes: int = 1
) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        features = network(x).float()
    for left in reversed(range(backward_passes)):
        features.square().sum().backward(retain_graph=left > 0)
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_running_statistics_are_the_same(name: str) -> None:
    for precision in ("float32", "bfloat16"):
        plain, other = twins(name)
        few = images(2, 32 if name == "resnet50" else 8)
        for _ in range(2):
            expected, found = gradients(plain, few, precision), gradients(other, few, precision)
            assert expected.keys() == found.keys()
            for parameter, gradient in expected.items():
                assert torch.equal(found[parameter], gradient), parameter
        for key, value in plain.state_dict().items():
            assert torch.equal(other.state_dict()[key], value), key


def test_a_graph_can_be_gone_through_again() -> None:
    plain, other = twins("wrn")
    expected, found = (
        gradients(plain, images(), "float32", 2),
        gradients(other, images(), "float32", 2),
    )
    for parameter, gradient in expected.items():
        assert torch.equal(found[parameter], gradient), parameter


def test_frozen_weights_and_evaluation_stay_as_they_are() -> None:
    plain, other = twins("wrn")
    for network in (plain, other):
        network.requires_grad_(False)
        network.get_submodule("norm").requires_grad_(True)
    expected, found = gradients(plain, images(), "float32"), gradients(other, images(), "float32")
    assert found.keys() == expected.keys() == {"norm.weight", "norm.bias"}
    assert all(torch.equal(found[n], g) for n, g in expected.items())
    with torch.no_grad():
        assert torch.equal(plain.eval()(images()), other.eval()(images()))


@contextmanager
def bytes_kept() -> Iterator[dict[int, int]]:
    """Note the bytes of what is kept as it is, by its place, except for parameters."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def test_about_half_is_kept() -> None:
    kept = []
    for network in twins("wrn"):
        with bytes_kept() as places:
            features = network(images())
        kept.append(sum(places.values()))
        del features
    assert 0.4 * kept[0] < kept[1] < 0.6 * kept[0]


def test_what_was_computed_again_is_not_kept_after_it_was_used() -> None:
    """All users of one tensor get the same one, and the next backward pass computes it anew."""
    _, other = twins("wrn")
    calls = []
    norm = other.get_submodule("norm")
    forward = torch.nn.functional.batch_norm

    def counted(*arguments: object, **options: object) -> Tensor:
        calls.append(arguments[0])
        return forward(*arguments, **options)  # type: ignore[arg-type]

    features = other(images()).square().sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "batch_norm", counted)
        features.backward(retain_graph=True)
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in other.modules())
        assert len(calls) == norms
        features.backward()
        assert len(calls) == 2 * norms
    assert isinstance(norm, nn.BatchNorm2d)


def test_a_network_without_such_parts_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--recompute\) is for wrn.*not for Linear"):
        recompute_activations(nn.Linear(2, 2))
