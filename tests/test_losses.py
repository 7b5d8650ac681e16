import pytest
import torch

from snnlearn import CrossEntropy, SpikeCount, losses

OUT = torch.tensor([[[0.0, 2.0]], [[3.0, -1.0]], [[1.0, 1.5]]], dtype=torch.float64)  # (T = 3, B = 1, C = 2)


@pytest.mark.parametrize(
    ("over", "scores"),
    [
        (losses.max_over_time, [3.0, 2.0]),
        (losses.sum_over_time, [4.0, 2.5]),
        (losses.mean_over_time, [4 / 3, 2.5 / 3]),
        (losses.last_step, [1.0, 1.5]),
    ],
)
def test_cross_entropy_by_hand(over, scores):
    loss = CrossEntropy(over, scale=2.0)
    logits = 2 * torch.tensor([scores], dtype=torch.float64)
    torch.testing.assert_close(loss.scores(OUT), logits)
    for label in (0, 1):
        wanted = torch.logsumexp(logits[0], 0) - logits[0, label]
        torch.testing.assert_close(loss(OUT, torch.tensor([label])), wanted)


def test_the_first_of_equal_maxima_takes_the_credit():
    out = torch.zeros(4, 1, 2, requires_grad=True)
    CrossEntropy(losses.max_over_time)(out, torch.tensor([0])).backward()
    assert out.grad[0].abs().sum() > 0
    assert out.grad[1:].abs().sum() == 0


def test_spike_count_by_hand():
    spikes = torch.zeros(10, 2, 3, dtype=torch.float64)
    spikes[:4, 0, 0] = 1  # counts: 4 0 0 / 1 2 0
    spikes[0, 1, 0] = spikes[0, 1, 1] = spikes[5, 1, 1] = 1
    spikes.requires_grad_()
    loss = SpikeCount(true=5, false=1)
    value = loss(spikes, torch.tensor([0, 2]))
    assert value.item() == 0.5 * ((1 + 1 + 1) + (0 + 1 + 25)) / 2
    value.backward()
    assert spikes.grad[3].tolist() == [[-0.5, -0.5, -0.5], [0.0, 0.5, -2.5]]  # (count - wanted) / B at every step
    assert loss.scores(spikes).tolist() == [[4, 0, 0], [1, 2, 0]]


def test_accuracy():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]])
    assert losses.accuracy(scores, torch.tensor([1, 1, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("loss", [CrossEntropy(), SpikeCount(3)])
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.tensor([2]), ValueError, r"0\.\.1, the 2 outputs.*got 2\.\.2"),
        (torch.tensor([-1]), ValueError, r"got -1\.\.-1"),
        (torch.tensor([0, 1]), ValueError, r"shape \(1,\).*got \(2,\)"),
        (torch.tensor([1.0]), TypeError, "integer tensor"),
        ([0], TypeError, "got list"),
    ],
)
def test_bad_labels(loss, y, error, message):
    with pytest.raises(error, match=message):
        loss(OUT, y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type(dtype):
    for loss in (CrossEntropy(), SpikeCount(3)):
        assert loss(OUT, torch.tensor([1], dtype=dtype)) == loss(OUT, torch.tensor([1]))


def test_bad_losses():
    with pytest.raises(ValueError, match=r"over must give scores \(1, 2\)"):
        CrossEntropy(over=lambda out: out)(OUT, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"\(T, B, classes\), got \(3, 2\)"):
        CrossEntropy()(OUT[:, 0], torch.tensor([0]))
    with pytest.raises(ValueError, match=r"\(T, B, classes\), got \(3, 2\)"):
        SpikeCount(3)(OUT[:, 0], torch.tensor([0]))
    with pytest.raises(TypeError, match="over must be a function"):
        CrossEntropy("max")
    with pytest.raises(ValueError, match="scale must be a positive"):
        CrossEntropy(scale=0.0)
    with pytest.raises(ValueError, match="0 <= false < true"):
        SpikeCount(true=1, false=2)
