"""Arrays and strings of an index on the disk: .npy and Parquet through a staging folder, memory-mapped back.

Source: tamis design. The caller verifies checksums first (`tamis.data.artefact.open_verified`).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.data.artefact import Staging
from tamis.data.columns import TEXT, parquet
from tamis.data.durable import HashedFile
from tamis.errors import ArtefactError

_CHUNK_BYTES = 16 << 20


def write_array(staging: Staging, name: str, array: np.ndarray) -> None:
    """Write one .npy file in C order."""
    array = np.ascontiguousarray(array)
    with staging.create(name) as file:
        write_header(file, array.shape, array.dtype)
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _CHUNK_BYTES):
            file.write(flat[start : start + _CHUNK_BYTES])


def write_header(file: HashedFile, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write the header of an .npy file whose rows follow."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def read_array(path: Path, dtypes: tuple[str, ...], num_dims: int = 1) -> np.ndarray:
    """Memory-map an .npy file, read-only.

    Raises:
      ArtefactError: missing, damaged, or of another type or shape.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtefactError(f"{path}: damaged or unreadable ({error}). Build this stage again.") from error
    if str(array.dtype) not in dtypes or array.ndim != num_dims:
        got, expected = f"{array.dtype} with {array.ndim} dimensions", " or ".join(dtypes)
        raise ArtefactError(f"{path}: holds {got}, expected {expected} with {num_dims}. Build this stage again.")
    return array


def write_strings(staging: Staging, name: str, values: pa.Array) -> None:
    """Write one column of strings as Parquet."""
    with staging.create(name) as file:
        pq.write_table(pa.table({"value": values}), file, compression="zstd", write_page_checksum=True)


def read_strings(path: Path) -> pa.LargeStringArray:
    """Read one column of strings.

    Raises:
      ArtefactError: missing or damaged.
    """
    with parquet(path):
        table = pq.read_table(path, columns=["value"], page_checksum_verification=True)
        column = table["value"].cast(TEXT)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], TEXT)


def read_text(path: Path) -> str:
    """Read a JSON file's text.

    Raises:
      ArtefactError: missing or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path}: damaged or unreadable ({error}). Build this stage again.") from error
