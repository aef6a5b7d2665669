import pytest
import torch
from torch import nn

from mnist_bench.worker.dropout import LEVELS, BitDropout, draw, with_bits

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


def test_only_plain_dropout_is_replaced():
    class Own(nn.Dropout):
        pass

    model = with_bits(nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.4)), nn.Dropout2d(), Own()))
    assert [type(one) for one in model.modules()][1:] == [BitDropout, nn.Sequential, BitDropout, nn.Dropout2d, Own]
    assert (model[0].p, model[1][0].p) == (0.3, 0.4)


def test_a_compiler_breaks_no_graph_at_it():
    torch.manual_seed(0)
    layer = BitDropout(0.2)
    found = torch.compile(layer, backend="aot_eager", fullgraph=True)(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(found, layer(torch.ones(1000)))
