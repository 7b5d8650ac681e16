import pytest
import torch

from snnlearn.optim import RMaxProp


def test_by_hand():
    """v = max(gamma v, g^2): the rate falls at once with a large gradient and comes back slowly."""
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = RMaxProp([p], lr=0.1, gamma=0.5)
    wanted, v = p.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for g in ([2.0, 0.1], [1.0, -0.4], [0.1, 0.1]):
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        v = torch.maximum(0.5 * v, p.grad**2)
        wanted = wanted - 0.1 * p.grad / v.sqrt()
        torch.testing.assert_close(p.detach(), wanted)
    assert v[0] == 1.0  # 4 halved twice, not 0.01


def test_resumed_is_the_same():
    def run(steps, state=None):
        p = torch.nn.Parameter(torch.ones(3) if state is None else state[0].clone())
        optimizer = RMaxProp([p], lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state[1])
        for n in steps:
            optimizer.zero_grad()
            (p * torch.tensor([1.0, 2.0, n])).square().sum().backward()
            optimizer.step()
        return p.detach(), optimizer.state_dict()

    assert torch.equal(run(range(3, 6), run(range(3)))[0], run(range(6))[0])


def test_a_parameter_without_gradient_stays():
    p, q = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = RMaxProp([p, q])
    p.grad = torch.ones(1)
    optimizer.step()
    assert q.item() == 1
    assert p.item() < 1


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"gamma": 1.5}, {"eps": -1.0}, {"lr": float("nan")}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be|lies in"):
        RMaxProp([torch.nn.Parameter(torch.ones(1))], **bad)
