"""Log-mel spectrogram of a sound."""

from __future__ import annotations

import numpy as np

STEPS = 1024  # to one unit of the logarithm


def mel(frequency: np.ndarray | float) -> np.ndarray:
    """Mel scale of a frequency in Hz: 2595 log10(1 + f / 700) (O'Shaughnessy, Speech Communication, 1987)."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def filter_bank(count: int, window: int, rate: int) -> np.ndarray:
    """Weights [count, window // 2 + 1] of `count` filters at the frequencies of a window's spectrum.

    The filters are triangles of height 1 on the mel scale. Their centres divide the range from 0 to rate / 2 into
    count + 1 equal parts and each filter ends at its neighbours' centres, so that the weights at a frequency between
    the first and the last centre sum to 1.
    """
    spacing = mel(rate / 2) / (count + 1)
    centres = spacing * np.arange(1, count + 1)
    places = mel(np.fft.rfftfreq(window, 1 / rate))
    return np.maximum(0, 1 - np.abs(places - centres[:, None]) / spacing)


def log_mel(sound: np.ndarray, bank: np.ndarray, window: int, hop: int, frames: int, offset: float) -> np.ndarray:
    """float32 [filters, frames]: ln(offset + filtered power) of frames of `window` samples, `hop` samples apart.

    sound: [n], from -1 to 1. The first (frames - 1) hop + window samples count; a shorter sound is followed by
    silence. Each frame is multiplied by a periodic Hann window; power is the squared absolute value of its discrete
    Fourier transform. Computed in float64 and rounded to 1/1024: processors differ in the last bits of a logarithm
    or a sum, which the rounding takes away, so that equal sounds give equal bytes on all of them.
    """
    needed = (frames - 1) * hop + window
    padded = np.zeros(needed)
    padded[: min(needed, len(sound))] = sound[:needed]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    slices = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * hann
    power = np.abs(np.fft.rfft(slices)) ** 2
    return (np.round(STEPS * np.log(offset + bank @ power.T)) / STEPS).astype(np.float32)
