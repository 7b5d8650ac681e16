"""The matrices behind EXODUS: forward substitution, closed forms, and the sums as they are printed."""

import pytest
import torch
from golden import Golden, equal
from hypothesis import given
from hypothesis import strategies as st

from snnlearn.implicit import Running, chi_eq17, d_eq14, d_eq19, newest, sigma, sigma_eq16, toeplitz, zeta_eq18

F64 = {"dtype": torch.float64}
STEMS = ["srm", "lif_paper", "lif_sinabs"]
seeds = st.integers(0, 2**31)


def close(a, b, rtol=1e-10):
    assert b.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=0, atol=rtol * b.abs().max().item())


def draw(seed, T):
    """Slopes in 0..1, kernels, an error."""
    g = torch.Generator().manual_seed(seed)
    f, e, eps, nu = (torch.rand(T, generator=g, **F64) for _ in range(4))
    return f, e - 0.5, eps, nu - 0.7


def solved(f, nu):
    """sigma by torch's solver for triangular systems."""
    T = len(f)
    A = torch.eye(T, **F64) - f[:, None] * toeplitz(nu, T, lag=1)
    return torch.linalg.solve_triangular(A, f.diag(), upper=False)


def lif_kernels(beta, theta, T):
    n = torch.arange(T, **F64)
    return beta**n, -theta * beta**n


def test_toeplitz_by_hand():
    kernel = torch.tensor([1.0, 2.0, 3.0])
    assert toeplitz(kernel, 4).tolist() == [[1, 0, 0, 0], [2, 1, 0, 0], [3, 2, 1, 0], [0, 3, 2, 1]]
    assert toeplitz(kernel, 4, lag=1).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0], [3, 2, 1, 0]]
    assert toeplitz(kernel, 2, lag=5).tolist() == [[0, 0], [0, 0]]
    assert toeplitz(kernel, 1).tolist() == [[1]]


@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_the_newest_value_is_the_filters_last_row(seed, T, K):
    kernel, x = (torch.rand(n, generator=torch.Generator().manual_seed(seed + n), **F64) for n in (K, T))
    torch.testing.assert_close(newest(kernel, x.unbind(0)), (toeplitz(kernel, T) @ x)[-1])


@given(seeds, st.integers(1, 70), st.integers(1, 70))
def test_a_running_filter_is_the_matrix(seed, T, K):
    """Kernels and sequences shorter and longer than a block, and than each other."""
    g = torch.Generator().manual_seed(seed)
    kernel, x = torch.randn(K, generator=g, **F64), torch.randn(T, 2, 3, generator=g, **F64)
    running = Running(kernel)
    got = torch.stack([running.push(x_n) for x_n in x])
    torch.testing.assert_close(got, torch.tensordot(toeplitz(kernel, T), x, dims=1), rtol=1e-12, atol=1e-12)
    assert running.past is None or len(running.past) <= K  # what the kernel has forgotten is let go


@given(seeds, st.integers(1, 30))
def test_forward_substitution_solves_the_system(seed, T):
    f, _, _, nu = draw(seed, T)
    close(sigma(f, nu), solved(f, nu))


def test_forward_substitution_sees_kernel_and_lag():
    f, _, _, nu = draw(0, 20)
    got = sigma(f, nu)
    late = torch.linalg.solve_triangular(torch.eye(20, **F64) - f[:, None] * toeplitz(nu, 20, 2), f.diag(), upper=False)
    assert not torch.allclose(got, late, rtol=1e-2)
    assert not torch.allclose(got, sigma(f, nu[:5]), rtol=1e-2)
    close(sigma(f, nu[:5]), solved(f, nu[:5]))  # a short kernel is zero beyond its end
    slayer = sigma(f, torch.zeros(1, **F64))
    assert torch.equal(slayer, f.diag())
    assert not torch.allclose(got, slayer, rtol=1e-2)


@pytest.mark.parametrize("stem", STEMS)
def test_golden_sigma(stem):
    g = Golden(f"10_exodus_{stem}")
    f = g["f1"][0, :, 0]
    equal(sigma(f, g["nu"]), g["sigma1_b0_n0"])
    with pytest.raises(AssertionError):
        equal(sigma(f, 1.01 * g["nu"]), g["sigma1_b0_n0"])


@pytest.mark.parametrize("stem", STEMS)
def test_golden_d(stem):
    """Eq. 14 neuron by neuron; Eqs. 13 and 15 are matrix products of it."""
    g = Golden(f"10_exodus_{stem}")
    for layer, e in ((1, g["grad_s1"]), (2, g["G"])):
        f, B = g[f"f{layer}"], len(g["x"])
        for name, nu in (("grad", g["nu"]), ("slayer_grad", 0 * g["nu"])):
            error = e if name == "grad" or layer == 2 else g["slayer_grad_s1"]
            d = torch.stack(
                [
                    torch.stack([d_eq14(error[b, :, i], sigma(f[b, :, i], nu), g["eps"]) for i in range(f.shape[2])], 1)
                    for b in range(B)
                ]
            )
            equal(d, g[f"{name}_a{layer}"])


@pytest.mark.parametrize(("stem", "decayed"), [("lif_paper", False), ("lif_sinabs", True)])
def test_golden_closed_forms(stem, decayed):
    """For the reset of the authors' code, alpha * theta stands in the place of theta."""
    g = Golden(f"10_exodus_{stem}")
    theta = g["theta"] * (g["alpha"] if decayed else 1)
    equal(sigma_eq16(g["f1"][0, :, 0], g["alpha"], theta), g["sigma1_b0_n0"])
    equal(d_eq19(g["G"][0, :, 0], g["f2"][0, :, 0], g["alpha"], theta), g["grad_a2"][0, :, 0])
    if decayed:
        with pytest.raises(AssertionError):
            equal(sigma_eq16(g["f1"][0, :, 0], g["alpha"], g["theta"]), g["sigma1_b0_n0"])


@given(seeds, st.integers(1, 25), st.floats(0.1, 1.0), st.floats(0.5, 1.5))
def test_closed_forms_are_the_solution(seed, T, beta, theta):
    """Eqs. 16 and 17 against Eq. 9, Eqs. 18 and 19 against Eq. 14."""
    f, e, _, _ = draw(seed, T)
    eps, nu = lif_kernels(beta, theta, T)
    found = sigma(f, nu)
    close(sigma_eq16(f, beta, theta), found)
    torch.testing.assert_close(d_eq19(e, f, beta, theta), d_eq14(e, found, eps), rtol=1e-9, atol=1e-12)


def test_products_as_printed():
    f, e, eps, nu = draw(1, 7)
    beta, theta = 0.8, 1.1
    chi, zeta = chi_eq17(f, beta, theta), zeta_eq18(f, beta, theta)
    for n in range(7):
        for m in range(7):
            product = 1.0
            for k in range(m + 1, n):
                product *= beta - theta * f[k].item()
            assert chi[n, m].item() == pytest.approx(product if n > m else 0)
            product = 1.0
            for k in range(m, n):
                product *= beta - theta * f[k].item()
            assert zeta[n, m].item() == pytest.approx(product if n >= m else 0)
    both = sigma(f, nu)
    d = d_eq14(e, both, eps)
    for n in range(7):
        double = sum(e[k] * both[k, m] * eps[m - n] for m in range(n, 7) for k in range(m, 7))
        assert d[n].item() == pytest.approx(double.item())


def test_the_upper_limit_of_sec_34_is_wrong():
    """Sec. 3.4 prints the product of Eq. 17 with upper limit n in place of n - 1: Eq. 16 does not hold with it."""
    f, _, _, _ = draw(2, 12)
    beta, theta = 0.8, 1.0
    printed = chi_eq17(f, beta, theta) * (beta - theta * f)[:, None]
    wrong = f.diag() - theta * f[:, None] * f * printed
    assert not torch.allclose(wrong, sigma(f, lif_kernels(beta, theta, 12)[1]), rtol=1e-2)


@pytest.mark.parametrize("area", [0.5, 3.0])
def test_how_far_the_reset_reaches(area):
    """Sec. 3.4: chi fades for small slopes and grows for large ones."""
    far = chi_eq17(torch.full((30,), area, **F64), 0.9, 1.0)[-1, 0].abs().item()
    assert (far < 1e-6) if area < 1 else (far > 1e6)


def test_refusals():
    f = torch.rand(5, **F64)
    with pytest.raises(ValueError, match=r"the slopes f must have one dimension.*of a layer \(T, B, N\) take"):
        sigma(torch.rand(5, 2, 3), f)
    with pytest.raises(TypeError, match=r"the kernel nu must be a floating-point tensor .* got <class 'list'>"):
        sigma(f, [1.0])
    with pytest.raises(TypeError, match=r"the slopes f must be a floating-point tensor .* got torch\.int64"):
        zeta_eq18(torch.ones(3, dtype=torch.long), 0.9, 1.0)
    for e in (torch.zeros(0), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="the error e must have one dimension"):
            d_eq14(e, torch.eye(2), f)
        with pytest.raises(ValueError, match="the error e must have one dimension"):
            d_eq19(e, f, 0.9, 1.0)
    with pytest.raises(ValueError, match="T, the number of steps, must be at least 1"):
        toeplitz(f, 0)
    with pytest.raises(ValueError, match="lag must be at least 0"):
        toeplitz(f, 3, -1)
    with pytest.raises(ValueError, match="the kernel must have one dimension"):
        toeplitz(f[:0], 3)
