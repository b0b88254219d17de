"""A table of pictures: CSV or JSON lines, with a file and a label in each row, and perhaps a split and a group."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from frugalnet.errors import UserError

FILE = ("file", "file_name")
LABEL = "label"
MAX_TABLE_BYTES = 2**28


@dataclass(frozen=True)
class Row:
    """`split` and `group`: None where the table has no such column. `number`: of the line, from 1."""

    number: int
    file: str
    label: str
    split: str | None
    group: str | None


def read_table(name: str, data: bytes) -> Iterator[Row]:
    """The rows of a table, one at a time. Raises UserError, with `name`, for other columns or a row without a value."""
    if len(data) > MAX_TABLE_BYTES:
        raise UserError(f"{name}: larger than {MAX_TABLE_BYTES // 2**20} MiB")
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    try:
        for number, record in _json_lines(text) if name.lower().endswith(".jsonl") else _csv_rows(text):
            yield _row(name, number, record)
    except (ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"{name}: not readable as a table in UTF-8 ({error})") from error


def has_columns(name: str, data: bytes) -> bool:
    """Whether a file is a table with a file and a label in its first row."""
    try:
        lines = data.split(b"\n", 2)[:2]
        return next(read_table(name, b"\n".join(lines)), None) is not None
    except UserError:
        return False


def _csv_rows(text: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    header = text.readline()
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(itertools.chain([header], text), delimiter=delimiter, strict=True)
    reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or ()]
    for record in reader:
        if None in record:
            raise ValueError(f"line {reader.line_num} has more values than columns")
        yield reader.line_num, record


def _json_lines(text: IO[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield number, record


def _row(name: str, number: int, record: dict[str, Any]) -> Row:
    file_column = next((column for column in FILE if column in record), None)
    if file_column is None or LABEL not in record:
        columns = ", ".join(map(str, record))
        raise UserError(f"{name}, line {number}: expected the columns file (or file_name) and label, found: {columns}")
    values = {key: _text(name, number, key, record.get(key)) for key in (file_column, LABEL, "split", "group")}
    for key in (file_column, LABEL, *(key for key in ("split", "group") if key in record)):
        if not values[key]:
            raise UserError(f"{name}, line {number}: no {key}")
    return Row(
        number,
        values[file_column],
        values[LABEL],
        values["split"] if "split" in record else None,
        values["group"] if "group" in record else None,
    )


def _text(name: str, number: int, key: str, value: object) -> str:
    if not isinstance(value, str | int | None):
        raise UserError(f"{name}, line {number}: {key} is {value!r:.60}; expected text or a whole number")
    return "" if value is None else str(value).strip()
