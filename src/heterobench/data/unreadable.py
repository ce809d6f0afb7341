"""A file that cannot be decoded: whatever the decoder raises becomes a DataError that names the file."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from scipy.io.matlab import MatReadError

from heterobench.errors import DataError

# What tarfile, zipfile, gzip, bz2, numpy, h5py, scipy.io and Pillow raise for truncated or altered bytes, for a member
# that is not there (KeyError), and for an edition of the format that they do not read (NotImplementedError).
FAULTS = (
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
    MatReadError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)


@contextmanager
def decoding(path: Path, complaint: str = "cannot be decoded") -> Iterator[None]:
    """Inside, a fault raises DataError: `path`, `complaint` and the decoder's reason.

    Keep it close to the decoder: a fault of other code is blamed on `path` too.
    """
    try:
        yield
    except FAULTS as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise DataError(f"{path}: {complaint}: {reason or type(error).__name__}") from error
