"""Open a file, compressed or not, on any store that fsspec knows."""

import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pyarrow as pa

from xl.errors import UserError

_BUFFER_BYTES = 1 << 20


@contextmanager
def opened(path: str) -> Iterator[io.BufferedReader]:
    """The file's bytes, unpacked as the end of its name says: .gz, .zst, .bz2 or .xz.

    Raises:
        UserError: the file is missing, cut off or otherwise damaged, which may show only while it is read; one line that names it.
    """
    compression = None if path.endswith(".zst") else "infer"
    try:
        file = fsspec.open(path, "rb", compression=compression)
    except (ImportError, ValueError) as error:  # a protocol whose library is missing, or one that fsspec does not know
        raise UserError(f"{path}: {error}") from None
    try:
        with file as stream:
            # Other readers of .zst take the first of many frames for the whole file, and the end of a cut file for its end.
            plain = stream if compression else pa.CompressedInputStream(stream, "zstd")
            yield io.BufferedReader(plain, _BUFFER_BYTES)
    except FileNotFoundError:
        raise UserError(f"no file {path!r}") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None
