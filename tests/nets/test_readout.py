"""Readouts: what they compute from each kind of features, the mirrored image, and their structure in a state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.nets.encoders.patches import PatchEncoder, geometries
from daso.nets.encoders.vector import Probe
from daso.nets.network import Network, build_encoder, build_vector_encoder
from daso.nets.readout import NAME, Block, Readout
from daso.readout.logistic import LinearHead
from daso.readout.projection import Projection

K, SIZE = 3, 7
IMAGES = torch.randint(256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def network() -> Network:
    torch.manual_seed(0)
    return Network(build_encoder("small-4", 1, 8), {"class": K}, [0.5], [0.2]).eval()


def patches() -> PatchEncoder:
    encoder = PatchEncoder(1, geometries(8, 8), 5)
    encoder.learn([IMAGES], torch.Generator().manual_seed(0))
    return encoder


def random_projection(dim: int, rooted: bool) -> Projection:
    return Projection(rooted, torch.randn(dim), torch.randn(dim, 4), torch.randn(4))


def joined(
    net: Network, mirrorings: int
) -> tuple[Readout, dict[str, tuple[Projection, Tensor]], Any]:
    """Return a readout of both kinds, and the maps it was given: five coordinates of its seven."""
    encoder = patches()
    dims = {"patches": encoder.dim, "network": net.dim}
    readout = Readout(dims, 6, SIZE, K, encoder, mirrorings=mirrorings)
    blocks = {
        kind: (random_projection(dim, kind == "patches"), torch.randn(4, 5))
        for kind, dim in dims.items()
    }
    bias, head = torch.randn(5), LinearHead(torch.randn(5, K), torch.randn(K))
    readout.take(blocks, bias, head, torch.tensor([0.7, 0.3, 0.0]))
    return readout, blocks, (bias, head)


def test_kinds_are_projected_added_and_classified() -> None:
    for mirrorings in (0, 1, 3):
        net = network()
        readout, blocks, (bias, head) = joined(net, mirrorings)
        net.read_out(readout)
        with torch.no_grad():
            z = bias.clone()
            for kind, encode in (("patches", readout.patches), ("network", net)):
                assert encode is not None
                views = [IMAGES, IMAGES.flip(3), IMAGES.flip(2), IMAGES.flip(2, 3)][
                    : 1 + mirrorings
                ]
                x = torch.stack([encode(view) for view in views]).mean(0)
                projection, matrix = blocks[kind]
                z = z + projection(x) @ matrix
            features = net.represent(IMAGES)
            assert features.shape == (4, SIZE)
            torch.testing.assert_close(features[:, :5], z)
            assert not features[:, 5:].any()
            torch.testing.assert_close(net.classify(features, net.output), head(z))
        for axis, of in ((3, (1, 3)), (2, (3,))):
            mirrored = net.represent(IMAGES.flip(axis))
            if mirrorings in of:
                torch.testing.assert_close(mirrored, features, atol=1e-4, rtol=1e-4)
            else:
                assert not torch.allclose(mirrored, features, atol=1e-2)


def test_what_is_taken_later_replaces_all() -> None:
    """Of a kind that is no longer joined, and of coordinates that are no longer there, nothing is left."""
    net = network()
    readout, blocks, _ = joined(net, 0)
    smaller = {"patches": (blocks["patches"][0], torch.randn(4, 2))}
    torch.testing.assert_close(
        readout.prior, torch.tensor([0.7, 0.3, 1e-8])
    )  # its logarithm is used
    readout.take(smaller, torch.zeros(2), LinearHead(torch.randn(2, K), torch.randn(K)))
    features = readout(net.encode, IMAGES)
    assert features[:, :2].any()
    assert not features[:, 2:].any()
    expected = blocks["patches"][0](readout.patches(IMAGES)) @ smaller["patches"][1]  # type: ignore[misc]
    torch.testing.assert_close(features[:, :2], expected, atol=1e-4, rtol=1e-4)
    assert not readout.weight[2:].any()
    torch.testing.assert_close(readout.prior, torch.full((K,), 1 / K))


def test_a_block_roots_and_normalizes() -> None:
    block = Block(3, 2, 4)
    block.rooted.fill_(True)
    block.center.copy_(torch.tensor([1.0, 0, 0]))
    block.matrix.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    x = torch.tensor([[4.0, 1, -9], [1, 0, 0]])
    block.bias.copy_(torch.tensor([0.0, 0.5]))
    expected = torch.tensor([[1.0, 1], [0, 0]]) / torch.tensor([[2.0], [1]]).sqrt()
    torch.testing.assert_close(block(x), expected + block.bias)


def test_a_state_tells_the_structure() -> None:
    for mirrorings in (0, 1, 3):
        net = network()
        readout = joined(net, mirrorings)[0]
        net.read_out(readout)
        other = network()
        again = Readout.like(net.state_dict())
        assert again is not None, mirrorings
        assert again.mirrorings == mirrorings
        other.read_out(again)
        other.load_state_dict(net.state_dict())
        assert other.output == NAME, mirrorings
        assert torch.equal(other.represent(IMAGES), net.represent(IMAGES)), mirrorings
        assert Readout.like(network().state_dict()) is None, mirrorings
        state = net.state_dict()
        older = {name: tensor for name, tensor in state.items() if not name.endswith(".share")}
        with pytest.raises(ValueError, match="earlier version"):
            Readout.like(older)
        averages = state["readout.blocks.patches.center"][: 2 * 5 * 9]  # as before there were peaks
        with pytest.raises(ValueError, match="90 features of other patches"):
            Readout.like(state | {"readout.blocks.patches.center": averages})


def test_embeddings_are_read_as_they_are_and_images_through_a_frozen_backbone() -> None:
    class Two(nn.Module):
        dim = 2

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.top = nn.Flatten(), Probe([0.0] * 64, [1.0] * 64)

        def forward(self, x: Tensor) -> Tensor:
            return (self.backbone(x) if x.dim() == 4 else x)[:, :2]

    net = Network(Two(), {}, [0.5], [0.2])
    readout = Readout({"vector": 64}, 4, SIZE, K)
    readout.take(
        {"vector": (random_projection(64, False), torch.randn(4, SIZE))},
        torch.zeros(SIZE),
        LinearHead(torch.randn(SIZE, K), torch.zeros(K)),
    )
    vectors = (IMAGES.flatten(1).float() / 255 - 0.5) / 0.2
    torch.testing.assert_close(net.encode(IMAGES, "vector"), vectors)
    net.read_out(readout)
    torch.testing.assert_close(net.represent(IMAGES), net.represent(vectors))
    assert F.cosine_similarity(net.represent(vectors)[:1], net.represent(vectors)[1:2]) < 0.999


def test_vectors_are_standardized() -> None:
    mean, std = [3.0, -1.0], [10.0, 0.1]
    net = Network(build_vector_encoder("linear", mean, std), {}, (), ())
    vectors = torch.tensor(mean) + torch.tensor(std) * torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(net.encode(vectors, "vector"), torch.tensor([[1.0, -2.0]]))
    probe = Network(build_vector_encoder("probe", mean, std), {}, (), ())
    assert torch.equal(probe.encode(vectors, "vector"), vectors)
