"""Networks: agreement with the authors' WRN and moving average, shapes, names, precision."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from daso.errors import OptionError
from daso.nets.ema import MovingAverage
from daso.nets.encoders.wrn import WideResNet
from daso.nets.network import Network, build_encoder

REFERENCE = Path(__file__).parent.parent / "reference" / "wrn28_1_ema.npz"


def our_name(theirs: str) -> str:
    """Translate a parameter name of the authors' network to ours."""
    name = theirs.replace("init_conv", "stem").replace("unit4.0", "norm")
    match = re.match(r"unit(\d)\.(\d)\.(.*)", name)
    if not match:
        return name
    group, block, rest = int(match[1]) - 1, int(match[2]), match[3]
    first = group == 0 and block == 0
    table = {"pre_act.0": "norm1", "layer.0": "conv1", "layer.1": "norm2", "layer.3": "conv2"}
    if not first:
        table = {"layer.0": "norm1", "layer.2": "conv1", "layer.3": "norm2", "layer.5": "conv2"}
    table["identity"] = "shortcut"
    for before, after in table.items():
        if rest.startswith(before + "."):
            rest = after + rest[len(before) :]
            break
    return f"blocks.{4 * group + block}.{rest}"


def test_wide_resnet_and_moving_average_agree_with_the_authors() -> None:
    vectors = np.load(REFERENCE)
    config = json.loads(str(vectors["config"]))
    encoder = WideResNet(config["depth"], config["width"])
    state = {
        our_name(name.removeprefix("state.")): torch.from_numpy(np.asarray(vectors[name]))
        for name in vectors.files
        if name.startswith("state.")
    }
    encoder.load_state_dict(state)
    network = Network(encoder, {}, [0.0] * 3, [1.0] * 3)
    average = MovingAverage(network, config["ema_decay"])
    x = torch.from_numpy(vectors["x"])

    def agrees(net: Network, name: str) -> None:
        net.eval()
        torch.testing.assert_close(net(x), torch.from_numpy(vectors[name]), rtol=1e-4, atol=1e-4)
        net.train()

    agrees(network, "features_eval_before")
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config["lr"],
        momentum=config["momentum"],
        nesterov=config["nesterov"],
        weight_decay=config["weight_decay"],
    )
    for step in range(config["steps"]):
        loss = network(x).square().mean()
        assert loss.item() == pytest.approx(vectors["losses"][step], rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.move(average.share(step))
    agrees(network, "features_eval_model")
    agrees(average.network, "features_eval_ema")


def test_an_encoder_gives_features_of_its_dimension() -> None:
    for name, channels, size, dim, parameters in (
        ("wrn-28-2", 3, 32, 128, 1_466_320),
        ("wrn-10-1", 1, 28, 64, 77_000),
        ("small", 1, 8, 128, 129_000),
        ("small-8", 3, 28, 32, 8_424),
        ("resnet18", 3, 64, 512, 11_168_832),
        ("resnet34", 3, 96, 512, 21_284_672),
        ("resnet50", 3, 96, 2048, 23_508_032),
    ):
        encoder = build_encoder(name, channels, size)
        network = Network(encoder, {"class": 5, "rotation": 4}, [0.5] * channels, [0.25] * channels)
        images = torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)
        features = network(images)
        assert encoder.dim == dim
        assert features.shape == (2, dim)
        assert features.dtype == torch.float32, name
        assert network.classify(features).shape == (2, 5), name
        assert network.classify(features, "rotation").shape == (2, 4), name
        count = sum(p.numel() for p in network.encoder.parameters())
        assert count == pytest.approx(parameters, rel=0.03)


def test_one_image_and_odd_sizes_pass_through() -> None:
    for name, size in (("wrn-10-1", 17), ("small", 9), ("resnet18", 40)):
        network = Network(build_encoder(name, 3, size), {"class": 2}, [0.5] * 3, [0.5] * 3).eval()
        assert network(torch.zeros(1, 3, size, size + 3, dtype=torch.uint8)).shape == (
            1,
            network.dim,
        )


def test_images_are_normalised_channel_by_channel_and_floats_pass_unchanged() -> None:
    network = Network(build_encoder("small-8", 3, 8), {}, [0.2, 0.4, 0.6], [0.5, 0.25, 0.1])
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = torch.tensor([-0.4, -0.8, 4.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(network.normalize(images), expected)
    assert network.normalize(expected) is expected


def test_bfloat16_changes_the_encoder_only_and_little() -> None:
    torch.manual_seed(0)
    exact = Network(build_encoder("wrn-10-1", 3, 32), {"class": 3}, [0.5] * 3, [0.25] * 3)
    coarse = Network(
        build_encoder("wrn-10-1", 3, 32), {"class": 3}, [0.5] * 3, [0.25] * 3, "bfloat16"
    )
    coarse.load_state_dict(exact.state_dict())
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    expected, actual = exact(images), coarse(images)
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, expected)
    assert (actual - expected).norm() < 0.03 * expected.norm()
    coarse.classify(actual).sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in coarse.parameters())


def test_initial_weights_follow_the_protocol() -> None:
    torch.manual_seed(0)
    network = Network(build_encoder("wrn-28-2", 3, 32), {"class": 10}, [0.5] * 3, [0.25] * 3)
    last = network.encoder.blocks[-1].conv2.weight
    assert last.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    head = network.heads["class"]
    assert head.bias.abs().max() == 0
    assert head.weight.std().item() == pytest.approx((2 / (128 + 10)) ** 0.5, rel=0.1)
    assert not any(
        module.bias is not None
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    )


def test_unknown_networks_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(OptionError, match="Did you mean 'resnet18'"):
        build_encoder("resnt18", 3, 32)
    with pytest.raises(OptionError, match="6 n \\+ 4"):
        build_encoder("wrn-27-2", 3, 32)
    with pytest.raises(OptionError, match="18, 34, 50"):
        build_encoder("resnet19", 3, 32)
    with pytest.raises(OptionError, match="precision"):
        Network(build_encoder("small", 1, 8), {}, [0.5], [0.5], "float8")


def test_the_average_starts_as_a_copy_then_decays() -> None:
    network = Network(build_encoder("small-8", 1, 8), {"class": 2}, [0.5], [0.5])
    average = MovingAverage(network, 0.9)
    weight, averaged = network.heads["class"].weight, average.network.heads["class"].weight
    expected = None
    for step in range(15):
        with torch.no_grad():
            weight.add_(1.0)
        average.move(average.share(step))
        decay = min(1 - 1 / (step + 1), 0.9)
        expected = (
            weight.detach().clone()
            if expected is None
            else decay * expected + (1 - decay) * weight.detach()
        )
        torch.testing.assert_close(averaged, expected)
    assert not averaged.requires_grad


def test_activations_keep_the_channels_of_a_pixel_side_by_side() -> None:
    layouts: list[bool] = []

    def look(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        layouts.append(output.is_contiguous(memory_format=torch.channels_last))

    for channels in (1, 3):
        encoder = build_encoder("wrn-10-1", channels, 28)
        network = Network(encoder, {}, [0.5] * channels, [0.25] * channels)
        for module in network.encoder.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
                module.register_forward_hook(look)
        network(torch.zeros(4, channels, 28, 28, dtype=torch.uint8))
        assert len(layouts) > 10 * (1 if channels == 1 else 2)
    assert all(layouts)


def test_images_are_resized_on_their_way_in_as_pillow_does() -> None:
    from PIL import Image

    network = Network(build_encoder("small-8", 3, 32), {}, [0.0] * 3, [1.0] * 3, resolution=32)
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
        (96, 96)
    )
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    expected = np.array(picture.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    resized = 255 * network.normalize(images)[0].numpy()
    assert np.abs(resized - expected).max() <= 1
    unchanged = images[:, :, :32, :32]
    torch.testing.assert_close(network.normalize(unchanged), unchanged / 255)
