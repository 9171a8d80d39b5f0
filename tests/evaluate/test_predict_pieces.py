"""What goes through a network at a time, and that it makes no difference to the answer."""

import pytest
import torch

from daso.evaluate import predict
from daso.evaluate.predict import predict_logits, rows_at_once
from daso.nets.encoders.small import SmallConvNet
from daso.nets.network import Network

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_rows_at_once() -> None:
    cases = {
        ((3, 32, 32), CPU, None): 128,
        ((3, 96, 96), CPU, 32): 14,
        ((3, 32, 32), CPU, 64): 32,
        ((3, 224, 224), CPU, None): 8,
        ((3, 32, 32), CUDA, None): 2048,
        ((64,), CPU, None): 4096,
        ((5, 64), CPU, None): 4096,
    }
    assert {case: rows_at_once(*case) for case in cases} == cases


def test_pieces_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Network(SmallConvNet(4, 1), {"class": 3}, (0.5,), (0.25,)).train()
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    whole = predict_logits(network, images)
    monkeypatch.setattr(predict, "PIXELS_CPU", 9 * 64)
    pieces = list(predict.predict_in_batches(network, images))
    assert [len(piece) for piece in pieces] == [9, 9, 9, 3]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-5, atol=1e-5)
    assert network.training
