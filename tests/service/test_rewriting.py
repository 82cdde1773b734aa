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
    words_of = pa.array(["jane says", "john says"]).dictionary_encode()
    columns = {
        "subject_id": words,
        "image": pictures,
        "tags": lists,
        "notes": pa.MapArray.from_arrays([0, 1, 2], pa.array(["a", "b"]), words_of),
        "pair": pa.FixedSizeListArray.from_arrays(words_of, 1),
        "said": pa.ListArray.from_arrays([0, 1, 2], words_of),
    }
    table = pa.table(columns)
    pq.write_table(table, path)
    stored = rewriting.without(path, {0: {0}})
    content = storage.path_of(stored.digest).read_bytes()
    assert b"jane" not in content
    assert b"john doe" in content
    left = pq.read_table(storage.path_of(stored.digest)).to_pylist()
    assert left == [
        {
            "subject_id": "john doe",
            "image": {"bytes": b"picture of john"},
            "tags": ["tag of john"],
            "notes": [("b", "john says")],
            "pair": ["john says"],
            "said": ["john says"],
        }
    ]
