"""From sound to spikes: basilar membrane, inner hair cells with their nerve fibres, bushy cells.

The chain and its constants are those of Cramer, Stradmann, Schemmel & Zenke 2020 (IEEE TNNLS, arXiv 1910.07407):
the long-wave cochlea of Sieroka, Dosch & Rupp 2006 (J. Acoust. Soc. Am. 120, 297), the transmitter pools of Meddis
1986 and 1988 (J. Acoust. Soc. Am. 79, 702 and 83, 1056), leaky integrate-and-fire bushy cells. Lengths are in cm,
masses in g, times in s. Where this leaves the paper it says so on the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Ear:
    """All constants of the chain; the defaults make the shipped spikes."""

    channels: int = 70
    rate: int = 22050  # of the sound, samples per second
    longest: int = 24000  # of a sound and the silence that follows it, samples

    # basilar membrane: stiffness, damping, mass and the duct of fluid above it
    C0: float = 1e8  # g/(cm^2 s^2), stiffness at the base is C0 - a
    alpha: float = 3.0  # 1/cm
    a: float = 3500.0  # g/(cm^2 s^2)
    damping: float = 0.15  # R0 = damping * sqrt(C0 * m)
    m: float = 0.05  # g/cm^2
    rho: float = 1.0  # g/cm^3
    h: float = 0.1  # cm, height of a duct
    length: float = 3.2  # cm; the paper's 3.5 has a negative stiffness from 3.42 on

    # inner hair cells, Meddis 1988
    gain: float = 50.0  # membrane velocity in units of the hair cell's A and B
    A: float = 5.0
    B: float = 300.0
    g: float = 2000.0  # 1/s, release
    y: float = 5.05  # 1/s, replenishment
    l: float = 2500.0  # 1/s, loss
    r: float = 6580.0  # 1/s, return
    x: float = 66.31  # 1/s, reprocessing
    M: float = 1.0  # the most transmitter that the free pool is filled up to
    hfire: float = 50000.0  # spikes/s for one unit of transmitter in the cleft

    # nerve fibres and bushy cells
    fibres: int = 40  # on each bushy cell
    tau_refractory: float = 1e-3  # s, of fibres and bushy cells alike
    tau_syn: float = 5e-4  # s
    tau_mem: float = 1e-3  # s
    weight: float = 0.3  # of one fibre's spike; threshold 1

    def places(self) -> NDArray[np.float64]:
        """Distance of each channel from the base, cm, (channels,)."""
        return np.linspace(0, self.length, self.channels)

    def frequencies(self) -> NDArray[np.float64]:
        """At which each channel's stiffness and mass resonate, Hz, (channels,), falling."""
        stiffness = self.C0 * np.exp(-self.alpha * self.places()) - self.a
        return np.sqrt(stiffness / self.m) / (2 * np.pi)


@lru_cache(maxsize=2)
def transfer(ear: Ear, between: int = 40) -> NDArray[np.complex128]:
    """Velocity of the membrane for a unit velocity of the stapes, (channels, longest // 2 + 1).

    A wave exp(i omega t) obeys p'' + k^2 p = 0 with k^2 = 2 rho omega^2 / (h xi) and the membrane's impedance
    xi = S - m omega^2 + i omega R; S = C0 exp(-alpha x) - a, R = R0 exp(-alpha x / 2). For a stiffness alone
    p = H0((2 / alpha) k) solves it; with mass and damping p = sqrt(G / k) H0(G) with the phase
    G(x) = (2 / alpha) k(0) + integral of k from 0 to x solves it nearly. H0 is the Hankel function of the second kind,
    a wave away from the stapes in the sign convention of numpy's FFT; the paper's convention is the other one, its
    transfer function the conjugate. At the base the fluid moves with the stapes, -p' = i omega rho u.

    The paper has a closed form for G; here it is a sum by the trapezium rule.

    Args:
        ear: its constants.
        between: steps of the sum from one channel to the next.
    """
    from scipy.special import hankel2

    omega = 2 * np.pi * np.fft.rfftfreq(ear.longest, 1 / ear.rate)[1:]
    R0 = ear.damping * np.sqrt(ear.C0 * ear.m)

    def impedance(x: float) -> NDArray[np.complex128]:
        S = ear.C0 * np.exp(-ear.alpha * x) - ear.a
        return S - ear.m * omega**2 + 1j * omega * R0 * np.exp(-ear.alpha * x / 2)

    def wave_number(x: float) -> NDArray[np.complex128]:
        return (omega * np.sqrt(2 * ear.rho / (ear.h * impedance(x)))).astype(np.complex128)

    stiff = omega * np.sqrt(2 * ear.rho / (ear.h * ear.C0))  # k(0) without mass and damping
    base = 2 / ear.alpha * stiff
    pressure0 = 1j * omega * ear.rho / stiff * hankel2(0, base) / hankel2(1, base)  # of a unit stapes velocity
    step = ear.length / ((ear.channels - 1) * between)
    k = wave_number(0.0)
    G = 2 / ear.alpha * k
    reference = np.sqrt(G / k) * hankel2(0, G)
    out = np.zeros((ear.channels, len(omega) + 1), dtype=np.complex128)  # nothing at 0 Hz
    for channel in range(ear.channels):
        if channel:
            for n in range(between):
                before, k = k, wave_number(((channel - 1) * between + n + 1) * step)
                G = G + step / 2 * (before + k)
        pressure = pressure0 * np.sqrt(G / k) * hankel2(0, G) / reference
        out[channel, 1:] = 1j * omega * pressure / impedance(channel * between * step)
    return out


def basilar_membrane(sound: NDArray[np.floating], ear: Ear) -> NDArray[np.float32]:
    """Velocity of the membrane at every channel, (T, N, channels), for sounds (N, T); linear.

    Raises:
        ValueError: the sound is longer than the ear's ``longest`` less a quarter, which its echo needs.
    """
    if sound.ndim != 2 or sound.shape[1] > ear.longest * 3 // 4:
        raise ValueError(f"sound must be (N, T) with T at most {ear.longest * 3 // 4}, got {sound.shape}")
    spectrum = np.fft.rfft(sound.astype(np.float32), ear.longest)
    out = np.empty((sound.shape[1], len(sound), ear.channels), dtype=np.float32)
    for channel, response in enumerate(transfer(ear).astype(np.complex64)):
        out[:, :, channel] = np.fft.irfft(spectrum * response, ear.longest)[:, : sound.shape[1]].T
    return out


def hair_cells(velocity: NDArray[np.floating], ear: Ear) -> NDArray[np.float32]:
    """Firing rate of the nerve fibres, spikes/s, of the same shape (T, ...) as the velocity; it starts at rest.

    Meddis 1986: dq/dt = y (M - q) + x w - k q; dc/dt = k q - (l + r) c; dw/dt = r c - x w, in steps of Euler's, with
    k = g (s + A) / (s + A + B) where s + A > 0 and else 0; the rate is hfire * c.
    """
    dt = 1 / ear.rate
    s = np.maximum(ear.gain * velocity + ear.A, 0)
    k = (ear.g * dt * s / (s + ear.B)).astype(np.float32)
    rest = ear.g * ear.A / (ear.A + ear.B)
    c = np.full(k.shape[1:], ear.M * ear.y * rest / (ear.l * rest + ear.y * (ear.l + ear.r)), dtype=np.float32)
    q = c * np.float32((ear.l + ear.r) / rest)
    w = c * np.float32(ear.r / ear.x)
    out = np.empty_like(k)
    for t in range(len(k)):
        released = k[t] * q
        returned = (ear.r * dt) * c
        ready = (ear.x * dt) * w
        q += (ear.y * dt) * (ear.M - q) + ready - released
        c += released - returned - (ear.l * dt) * c
        w += returned - ready
        np.multiply(c, ear.hfire, out=out[t])
    return out


def nerve_fibres(rate: NDArray[np.floating], ear: Ear, generator: np.random.Generator) -> NDArray[np.uint8]:
    """How many of a bushy cell's fibres fire at each sample, of the same shape (T, ...).

    A fibre that fired rests for ``tau_refractory``; how many of the others fire is binomial, which has the
    distribution of one draw for each fibre.
    """
    rests = round(ear.tau_refractory * ear.rate)
    out = np.zeros(rate.shape, dtype=np.uint8)
    free = np.full(rate.shape[1:], ear.fibres, dtype=np.int64)
    for t in range(len(rate)):
        if t >= rests:
            free += out[t - rests]
        fired = generator.binomial(free, rate[t] / ear.rate)
        free -= fired
        out[t] = fired
    return out


def bushy_cells(fired: NDArray[np.integer], ear: Ear) -> NDArray[np.bool_]:
    """Spikes, of the same shape (T, ...), of leaky neurons with threshold 1 that are reset to 0 and then rest.

    tau_mem dv/dt = -v + i and tau_syn di/dt = -i, i rises by ``weight`` with each spike of a fibre; exact for a current
    that stays as it is for a sample.
    """
    rests = round(ear.tau_refractory * ear.rate)
    keep, decay = np.exp(-1 / (ear.rate * ear.tau_mem)), np.exp(-1 / (ear.rate * ear.tau_syn))
    v = np.zeros(fired.shape[1:], dtype=np.float32)
    i = np.zeros_like(v)
    wait = np.zeros(v.shape, dtype=np.int32)
    out = np.zeros(fired.shape, dtype=np.bool_)
    for t in range(len(fired)):
        i *= decay
        i += ear.weight * fired[t]
        v *= keep
        v += (1 - keep) * i
        v *= wait <= 0
        spiked = np.greater_equal(v, 1, out=out[t])
        v *= ~spiked
        wait -= 1
        np.copyto(wait, rests, where=spiked)
    return out


def listen(sound: NDArray[np.floating], ear: Ear, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Spikes (T, N, channels) of the bushy cells for sounds (N, T)."""
    rate = hair_cells(basilar_membrane(sound, ear), ear)
    return bushy_cells(nerve_fibres(rate, ear, generator), ear)
