"""Bounded byte streams over plain, gzip and zstd files: a bomb, a cut or garbage ends the stream with a reason.

Source: tamis design (reliability D12); RFC 1952 (concatenated members), RFC 8878 (several frames).
"""

import io
import os
import stat
import zlib
from typing import Any, BinaryIO

import zstandard

from tamis.ingestion.sources import SourceFile

MAX_RATIO = 200
RATIO_FREE_BYTES = 64 << 20
MAX_BYTES = 1 << 40
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_INPUT_BYTES = 512  # a zstd block may expand 32,768 times: what one call can return stays below 16 MiB
_GZIP_OUTPUT_BYTES = 1 << 18
_MAX_WINDOW_BYTES = 1 << 27


class ByteStream(io.RawIOBase):
    """The decompressed bytes of a file, in order, bounded in memory.

    A fault never raises: the stream ends there, and ``problem`` holds (reason, detail).

    Attributes:
      problem: None, or the reason why the stream ended early: decompression_bomb, truncated_stream,
        trailing_garbage, corrupt_stream, too_many_bytes, unreadable.
      num_out: bytes given so far.
    """

    def __init__(self, file: BinaryIO, packing: str, *, max_bytes: int = MAX_BYTES) -> None:
        """Read ``file``, packed as "gz", "zst" or "" (plain)."""
        super().__init__()
        self._file, self._packing, self._max_bytes = file, packing, max_bytes
        self.problem: tuple[str, str] | None = None
        self._decoder: Any = None
        self._input = b""
        self._output = memoryview(b"")
        self._num_in = self.num_out = 0
        self._ended = False

    def readable(self) -> bool:
        """Return True: this is a reading end."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill ``buffer`` with the next bytes; 0 at the end, whatever ended it."""
        while not self._output and not self._ended:
            self._output = memoryview(self._next())
            self.num_out += len(self._output)
            self._check_bounds()
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def seek_plain(self, offset: int) -> None:
        """Go to a byte of a plain file; only before the first read."""
        self._file.seek(offset)

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()

    def _stop(self, reason: str, detail: str) -> bytes:
        self.problem, self._ended = (reason, detail), True
        return b""

    def _check_bounds(self) -> None:
        if self._packing and self.num_out > RATIO_FREE_BYTES and self.num_out > MAX_RATIO * self._num_in:
            self._output = memoryview(b"")
            self._stop("decompression_bomb", f"{self._num_in} bytes gave {self.num_out}, more than {MAX_RATIO} times")
        elif self.num_out > self._max_bytes:
            self._output = memoryview(b"")
            self._stop("too_many_bytes", f"more than {self._max_bytes} bytes")

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            return self._stop("unreadable", str(error.strerror))
        self._num_in += len(data)
        return data

    def _next(self) -> bytes:
        if not self._packing:
            data = self._read(1 << 16)
            self._ended = self._ended or not data
            return data
        if not self._input:
            self._input = self._read(1 << 14 if self._packing == "gz" else _ZSTD_INPUT_BYTES)
        if self._decoder is None:
            return self._start_member()
        try:
            return self._decode_gzip() if self._packing == "gz" else self._decode_zstd()
        except (zlib.error, zstandard.ZstdError) as error:
            return self._stop("corrupt_stream", f"after {self.num_out} bytes: {error}")

    def _start_member(self) -> bytes:
        """Begin the next member or frame, or end: at the end of the file, at zero padding, at garbage."""
        if len(self._input) < 4 and not self._ended:
            self._input += self._read(4)
        if not self._input.strip(b"\0"):
            if self.num_out == 0 and not self._num_in:
                return self._stop("truncated_stream", "the file is empty")
            self._ended = not self._input
            self._input = b""
            return b""
        gzip = self._packing == "gz"
        if not self._input.startswith(_GZIP_MAGIC if gzip else _ZSTD_MAGIC) and not (not gzip and self._is_skippable()):
            reason = "trailing_garbage" if self.num_out else "corrupt_stream"
            return self._stop(reason, f"after {self.num_out} bytes: not {self._packing} data")
        if gzip:
            self._decoder = zlib.decompressobj(wbits=31)
        else:
            self._decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        return b""

    def _is_skippable(self) -> bool:
        return self._input[1:4] == b"\x2a\x4d\x18" and self._input[0] & 0xF0 == 0x50

    def _decode_gzip(self) -> bytes:
        at_end = not self._input
        data: bytes = self._decoder.decompress(self._input, _GZIP_OUTPUT_BYTES)
        self._input = self._decoder.unconsumed_tail
        if self._decoder.eof:
            self._input = self._decoder.unused_data
            self._decoder = None
        elif at_end and not data:  # nothing came in, nothing was held back
            return self._stop("truncated_stream", f"after {self.num_out} bytes")
        return data

    def _decode_zstd(self) -> bytes:
        if not self._input:
            return self._stop("truncated_stream", f"after {self.num_out} bytes")
        data: bytes = self._decoder.decompress(self._input)
        self._input = b""
        if self._decoder.eof:
            self._input = self._decoder.unused_data
            self._decoder = None
        return data


def open_stream(source: SourceFile) -> ByteStream:
    """Open a source's decompressed bytes.

    Raises:
      OSError: it cannot be opened, or is no regular file any more.
    """
    descriptor = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file any more")
    return ByteStream(os.fdopen(descriptor, "rb", buffering=0), source.packing)
