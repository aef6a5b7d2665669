import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mnist_bench.worker.layers import (
    FLOPS,
    LEVELS,
    BitDropout,
    LogisticTanh,
    OneDnnLinear,
    PartedConvolution,
    ShiftedMaxPool,
    draw,
    linear_by_onednn,
    replace_layers,
)

COUNT = 1_000_003  # not a multiple of four, of which a word of random bits holds the masks


def test_each_of_a_words_lanes_drops_with_the_chance_asked_for_and_independently():
    torch.manual_seed(0)
    kept = draw(torch.empty(COUNT), round(0.2 * LEVELS)).float()
    assert kept.mean() == pytest.approx(0.8, abs=0.002)  # five standard errors
    lanes = kept[: COUNT // 4 * 4].view(-1, 4)
    torch.testing.assert_close(lanes.mean(0), torch.full((4,), 0.8), atol=0.004, rtol=0)
    torch.testing.assert_close(torch.corrcoef(lanes.T), torch.eye(4), atol=0.01, rtol=0)
    assert not torch.equal(draw(torch.empty(COUNT), LEVELS // 5), draw(torch.empty(COUNT), LEVELS // 5))


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_what_is_kept_is_scaled_so_that_the_mean_stays_and_gradients_take_the_same_mask(chance, order):
    torch.manual_seed(0)
    images = torch.ones(64, 10, 27, 27).contiguous(memory_format=order).requires_grad_()
    out = BitDropout(chance)(images)
    out.backward(torch.ones_like(out))
    assert out.is_contiguous(memory_format=order)
    dropped = round(chance * LEVELS)
    scaled = [LEVELS / (LEVELS - dropped)] if chance < 1 else []
    assert images.grad.unique().tolist() == pytest.approx([0.0] * (chance > 0) + scaled)
    assert images.grad.mean() == pytest.approx(float(chance < 1), abs=0.02)
    assert torch.equal(images.grad, out)
    assert BitDropout(chance).eval()(images) is images


def test_only_plain_layers_are_replaced():
    class Own(nn.Dropout):
        pass

    def pools():
        return nn.MaxPool2d(2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, padding=1), nn.MaxPool2d((2, 3), 1)

    def convolutions():
        plain = nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=2)
        return (
            plain,
            nn.Conv2d(2, 4, 3, groups=2),
            nn.Conv2d(2, 4, 3, padding="same"),
            nn.Conv2d(2, 4, 3, 1, 1, 1, 1, True, "reflect"),
        )

    def model():
        dropouts = nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.4)), nn.Dropout2d(), Own()
        return nn.Sequential(*dropouts, *convolutions(), *pools(), nn.Tanh())

    replaced = [BitDropout, nn.Sequential, BitDropout, nn.Dropout2d, Own, PartedConvolution, *[nn.Conv2d] * 3]
    for compiled, pool, tanh in ((False, nn.MaxPool2d, nn.Tanh), (True, ShiftedMaxPool, LogisticTanh)):
        found = replace_layers(model(), compiled=compiled)
        assert [type(one) for one in found.modules()][1:] == [*replaced, pool, *[nn.MaxPool2d] * 3, tanh]
        assert (found[0].p, found[1][0].p) == (0.3, 0.4)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 2), "bias": False},
        {"kernel_size": 3, "dilation": 2, "padding": 1},
        {"kernel_size": (9, 8)},  # the whole image
        {"kernel_size": (9, 8), "padding": 1, "bias": False},
    ],
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_by_parts_gives_what_torchs_gives_and_counts_as_much(settings, order):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(5, 7, **settings)).to(memory_format=order)
    found, images = [], torch.randn(4, 5, 9, 8).contiguous(memory_format=order)
    for model in (plain, replace_layers(copy.deepcopy(plain), compiled=False)):
        input = images.clone().requires_grad_()
        with FlopCounterMode(display=False) as counter:
            out = model(input)
            out.square().sum().backward()
            model(images).sum().backward()  # the first layer's images take no gradient
        found.append([out, input.grad, *(one.grad for one in model.parameters())])
        found[-1].append(torch.tensor(counter.get_total_flops()))
    assert type(model[0]) is PartedConvolution
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-3)


def test_tanh_by_the_logistic_function_is_off_by_less_than_it_says():
    values = torch.cat([torch.linspace(-20, 20, 400_001), torch.logspace(-30, 3, 10_000), torch.tensor([float("inf")])])
    images = values.clone().requires_grad_()
    out = LogisticTanh()(images)
    out.sum().backward()
    exact = values.double().tanh()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-7)
    torch.testing.assert_close(images.grad.double(), 1 - exact**2, rtol=0, atol=4e-7)
    assert LogisticTanh()(torch.tensor(float("nan"))).isnan()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_shifted_pooling_has_the_values_of_torchs_and_its_gradients_but_for_ties(size, order):
    torch.manual_seed(0)
    images = torch.rand(4, 5, 9, 8).contiguous(memory_format=order)
    holed = images.clone()
    holed[0, 0, 4, 4] = float("nan")
    tied = torch.randint(3, (4, 5, 9, 8)).float()
    found = []
    for layer in (nn.MaxPool2d(size, 1), ShiftedMaxPool(size, 1)):
        one, other = (each.clone().requires_grad_() for each in (images, tied))
        for own in (one, other):
            out = layer(own)
            out.backward(torch.arange(float(out.numel())).view_as(out))
            found.append(out)
        found += [one.grad, other.grad.sum(), layer(holed)]
    half = len(found) // 2
    torch.testing.assert_close(found[:half], found[half:], equal_nan=True)


def test_a_compiler_breaks_no_graph_at_it():
    torch.manual_seed(0)
    layer = BitDropout(0.2)
    found = torch.compile(layer, backend="aot_eager", fullgraph=True)(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(found, layer(torch.ones(1000)))


class Own(nn.Linear):
    pass


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_by_onednn_gives_what_torchs_gives_and_counts_as_much(bias):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(40, 30, bias=bias), nn.ReLU(), Own(30, 20), nn.Linear(20, 10))
    other = linear_by_onednn(copy.deepcopy(plain))
    assert [type(one) for one in other] == [OneDnnLinear, nn.ReLU, Own, OneDnnLinear]
    assert [*other.state_dict()] == [*plain.state_dict()]
    found, images = [], torch.randn(50, 40)
    for model in (plain, other):
        input = images.clone().requires_grad_()
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            out = model(input)
            out.square().sum().backward()
        found.append([out, input.grad, *(one.grad for one in model.parameters()), model(images.view(5, 10, 40))])
        found[-1].append(torch.tensor(counter.get_total_flops()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_weights_that_take_no_gradient_and_images_that_do():
    layer = linear_by_onednn(nn.Sequential(nn.Linear(4, 3)))[0]
    layer.weight.requires_grad_(False)
    images = torch.randn(2, 4, requires_grad=True)
    layer(images).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(images.grad, layer.weight.sum(0).expand(2, 4))
