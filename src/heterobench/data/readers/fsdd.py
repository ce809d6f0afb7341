"""Free Spoken Digit Dataset: log-mel features of the recordings in ``recordings.tar``.

A recording is ``recordings/<digit>_<speaker>_<index>.wav``, mono, 16 bit, 8 kHz. The test part is what the authors say:
indices 0 to 4 of each digit of each speaker. Examples are in the order of digit, speaker and index. Inputs are float32
[1, filters, frames], see `heterobench.data.mel`; with the default options windows of 32 ms every 16 ms, 32 filters
from 0 to 4 kHz and 48 frames, 784 ms, which 97.7 % of the recordings do not exceed. Loudness is left as it is: it is
part of how speakers differ.
"""

from __future__ import annotations

import re
import tarfile
import wave
from pathlib import Path

import numpy as np
from pydantic import Field

from heterobench.config.numbers import Count, Positive
from heterobench.config.strict import Strict
from heterobench.data.holdout import divided
from heterobench.data.mel import filter_bank, log_mel
from heterobench.data.readers import Arrays
from heterobench.data.unreadable import decoding
from heterobench.errors import DataError

RATE = 8000  # samples a second
FULL = 32768  # a 16-bit sample of this size is 1
NAME = re.compile(r"recordings/(\d)_([a-z]+)_(\d+)\.wav")
TEST_INDICES = 5


class Options(Strict):
    window: Count = Field(256, description="samples of a frame")
    hop: Count = Field(128, description="samples from a frame to the next")
    filters: Count = Field(32, description="mel filters")
    frames: Count = Field(48, description="of an input; longer recordings are cut, shorter ones padded")
    offset: Positive = Field(1e-6, description="added to the power of a filter: the level of silence")


def read(raw: Path, options: Options) -> Arrays:
    path = raw / "recordings.tar"
    bank = filter_bank(options.filters, options.window, RATE)
    examples = {}
    with decoding(path), tarfile.open(path, "r:") as archive:
        for member in archive:
            parts = NAME.fullmatch(member.name)
            if parts is None:
                raise DataError(f"{path}: {member.name!r} is not recordings/<digit>_<speaker>_<index>.wav")
            sound = samples(archive.extractfile(member), f"{path}: {member.name}")
            examples[int(parts[1]), parts[2], int(parts[3])] = log_mel(
                sound, bank, options.window, options.hop, options.frames, options.offset
            )
    if not examples:
        raise DataError(f"{path}: no recordings")
    keys = sorted(examples)
    speakers = sorted({speaker for _, speaker, _ in keys})
    columns = {
        "x": np.stack([examples[key] for key in keys])[:, None],
        "y": np.array([digit for digit, _, _ in keys], np.int64),
        "speaker": np.array([speakers.index(speaker) for _, speaker, _ in keys], np.int64),
    }
    is_test = np.array([index < TEST_INDICES for _, _, index in keys])
    return divided(columns, is_test) | {"names_speaker": np.array(speakers)}


def samples(stream, where: str) -> np.ndarray:
    """float64 [n] from -1 to 1 of a wav file. Raises DataError for one that is not mono, 16 bit and 8 kHz."""
    try:
        with wave.open(stream) as sound:
            form = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
            data, length = sound.readframes(sound.getnframes()), sound.getnframes()
    except (wave.Error, EOFError) as error:
        raise DataError(f"{where}: not a wav file: {error}") from None
    if form != (1, 16, RATE):
        raise DataError(f"{where}: {form[0]} channels of {form[1]} bits at {form[2]} Hz, expected 1 of 16 at {RATE}")
    if len(data) != 2 * length:
        raise DataError(f"{where}: the header says {length} samples, found {len(data) / 2:g}")
    return np.frombuffer(data, "<i2") / FULL
