"""What is written anew without some rows keeps nothing of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service import rewriting, storage

pytestmark = pytest.mark.usefixtures("empty")


def test_dictionaries_of_a_file_keep_nothing_of_who_is_gone(tmp_path: Path) -> None:
    """Of pandas' categories every one is written, whether a row has it or not."""
    names = ["jane roe", "john doe"]
    words = pa.array(names).dictionary_encode()
    pictures = pa.StructArray.from_arrays(
        [pa.array([b"picture of jane", b"picture of john"]).dictionary_encode()], names=["bytes"]
    )
    path = tmp_path / "people.parquet"
    lists = pa.array([["tag of jane"], ["tag of john"]])
    table = pa.table({"subject_id": words, "image": pictures, "tags": lists})
    pq.write_table(table, path)
    stored = rewriting.without(path, {0: {0}})
    content = storage.path_of(stored.digest).read_bytes()
    assert b"jane" not in content
    assert b"john doe" in content
    left = pq.read_table(storage.path_of(stored.digest)).to_pylist()
    assert left == [
        {"subject_id": "john doe", "image": {"bytes": b"picture of john"}, "tags": ["tag of john"]}
    ]
