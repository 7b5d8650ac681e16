import math

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


def test_over_time_by_hand():
    y, T, B = torch.tensor([1]), 3, 1
    each = [torch.logsumexp(OUT[n, 0], 0) - OUT[n, 0, 1] for n in range(T)]
    total = losses.OverTime(losses.cross_entropy)
    torch.testing.assert_close(total(OUT, y), sum(each))
    torch.testing.assert_close(losses.OverTime(losses.cross_entropy, mean=True)(OUT, y), sum(each) / (T * B))
    torch.testing.assert_close(total.scores(OUT), OUT.mean(0))
    torch.testing.assert_close(losses.OverTime(losses.cross_entropy, scale=5.0).scores(OUT), 5 * OUT.mean(0))
    flags = OUT > 1
    square = losses.OverTime(losses.half_square)
    torch.testing.assert_close(square(OUT, flags), square(OUT, flags.double()))
    changing = torch.tensor([[1], [0], [1]])
    wanted = each[0] + torch.logsumexp(OUT[1, 0], 0) - OUT[1, 0, 0] + each[2]
    torch.testing.assert_close(total(OUT, changing), wanted)


def test_over_time_step_by_step():
    """What a rule forward in time sees adds up to the loss; a filter runs along with it."""
    y = torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for loss in (losses.OverTime(losses.half_square, mean=True, scale=3.0), losses.van_rossum()):
        states = None if loss.filter is None else [loss.filter.start(OUT[0])] * 2
        total = torch.zeros((), dtype=torch.float64)
        for n in range(3):
            pair = OUT[n], loss.target(y, n)
            if states is not None:
                states = [loss.filter.step(state, v) for state, v in zip(states, pair, strict=True)]
                pair = [loss.filter.value(state) for state in states]
            total += loss.weight(3, 1) * loss.at(*pair)
        torch.testing.assert_close(total, loss(OUT, y))
        assert total > 0


def test_patterns_are_the_targets_of_classes():
    patterns = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = losses.OverTime(losses.half_square, patterns=patterns)
    y = torch.tensor([2])
    torch.testing.assert_close(loss(OUT, y), losses.OverTime(losses.half_square)(OUT, patterns[:, [2]]))


def patterned(steps):
    return losses.OverTime(losses.half_square, patterns=torch.ones(steps, 2, 2))


def test_a_pattern_may_be_chosen_by_bytes_choose_patterns():
    patterns = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = losses.OverTime(losses.half_square, patterns=patterns)
    assert loss(OUT, torch.tensor([1], dtype=torch.uint8)) == loss(OUT, torch.tensor([1]))


def test_current_count_asks_in_one_direction_only():
    """tau_s = 1 counts spikes; the label's output may have more than asked, the others fewer."""
    loss, y = losses.CurrentCount(true=2, false=1, tau_s=1.0), torch.tensor([0])
    enough = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]], dtype=torch.float64)
    assert loss(enough, y) == 0
    torch.testing.assert_close(loss(enough, 1 - y).item(), 0.5 * ((3 - 1) ** 2 + (0 - 2) ** 2) / 3)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: losses.OverTime(None), TypeError),
        (lambda: losses.OverTime(losses.half_square, scale=0), ValueError),
        (lambda: losses.OverTime(losses.half_square, patterns=torch.ones(3, 2)), ValueError),
        (lambda: losses.OverTime(losses.half_square)(OUT, torch.zeros(3, 1, 5)), ValueError),
        (lambda: losses.OverTime(losses.half_square)(OUT, torch.zeros(2, 1, 2)), ValueError),
        (lambda: losses.OverTime(losses.half_square, patterns=torch.ones(2, 2, 2))(OUT, torch.tensor([0])), ValueError),
        (
            lambda: losses.OverTime(losses.half_square, patterns=torch.ones(3, 2, 2))(OUT, torch.tensor([-1])),
            ValueError,
        ),
        (lambda: losses.OverTime(losses.half_square, patterns=torch.ones(3, 2, 2))(OUT, torch.tensor([2])), ValueError),
        (lambda: losses.OverTime(losses.half_square, patterns=torch.ones(3, 2, 2))(OUT, torch.ones(1)), TypeError),
        (lambda: losses.OverTime(losses.half_square, patterns=torch.full((3, 2, 2), math.nan)), ValueError),
        (lambda: losses.OverTime(losses.half_square, patterns=[1.0]), ValueError),
        (lambda: losses.OverTime(losses.half_square)(OUT, OUT * math.nan), ValueError),
        (lambda: losses.OverTime(torch.nn.functional.cross_entropy)(OUT, torch.tensor([0])), ValueError),
        (lambda: losses.OverTime(losses.cross_entropy)(OUT[..., None], torch.tensor([0])), ValueError),
        (lambda: losses.van_rossum(5e-3), TypeError),
        (lambda: losses.OverTime(losses.cross_entropy)(OUT, torch.tensor([2])), ValueError),
        (lambda: losses.OverTime(losses.cross_entropy)(OUT, torch.tensor([0.5])), TypeError),
        (lambda: losses.OverTime(losses.cross_entropy).scores(OUT[0]), ValueError),
        (lambda: losses.CurrentCount(1, 2), ValueError),
        (lambda: losses.CurrentCount(2, 1, tau_s=0.1), ValueError),
        (lambda: losses.CurrentCount(2, 1)(OUT[0], torch.tensor([0])), ValueError),
    ],
)
def test_bad_input_to_the_losses_over_time(bad, error):
    with pytest.raises(error, match=r"must|got|want|targets|patterns|gave"):
        bad()
