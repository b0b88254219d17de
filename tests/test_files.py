from dataclasses import dataclass
from pathlib import Path

import pytest

from frugalnet.errors import UserError
from frugalnet.files import read_history, read_table, write_table


@dataclass
class Row:
    name: str
    value: float | None


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [Row('a "name", with\na line', 0.1 + 0.2), Row("", None)])
    assert read_table(path) == [
        {"name": 'a "name", with\na line', "value": "0.30000000000000004"},
        {"name": "", "value": ""},
    ]
    write_table(path, [])
    assert read_table(path) == []


@pytest.mark.parametrize("content", [None, b"a,b\n1\n", b"a,b\n1,2,3\n", b"a,b\n\xff,2\n"])
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: missing or damaged"):
        read_table(path)


def test_a_history_without_numbers_is_refused_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "history.csv", [{"epoch": "one"}])
    with pytest.raises(UserError, match="history.csv: missing or damaged .*'one'"):
        read_history(tmp_path / "history.csv")
