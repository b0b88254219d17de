"""The body of a request → the image files in it: one file as it is, a form with files, or JSON."""

import base64
import binascii
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File as FormFile
from python_multipart.multipart import FormParser, parse_options_header

from frugalnet.use.server.api import Pictures, Refusal

MAX_PICTURES = 64  # of one request
KINDS = "image/* or application/octet-stream (one file), multipart/form-data (files), application/json"


@dataclass(frozen=True)
class File:
    """An image file, not yet looked at. name: for messages."""

    name: str
    data: bytes


def read_files(content_type: str, body: bytes) -> list[File]:
    """The files in a body, at least one. content_type: the request's header, "" if it has none.

    Raises Refusal for another type, for a body that is not of its type, and for too many files.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        files = _of_form(body, options.get(b"boundary"))
    elif kind == b"application/json":
        files = _of_json(body)
    elif kind.startswith(b"image/") or kind in (b"", b"application/octet-stream"):
        files = [File("the picture", body)]
    else:
        found = content_type.partition(";")[0]
        raise Refusal(415, f"Content-Type: expected {KINDS}, found {found}; with curl: -F picture=@photo.jpg")
    if not files:
        raise Refusal(422, "no picture: expected at least one")
    return files


def _check_count(count: int) -> None:
    if count > MAX_PICTURES:
        raise Refusal(413, f"expected at most {MAX_PICTURES} pictures a request")


def _of_form(body: bytes, boundary: bytes | None) -> list[File]:
    files: list[File] = []

    def add(part: FormFile) -> None:
        _check_count(len(files) + 1)  # at once: a body may hold a million of them
        files.append(_of_part(part))

    def refuse(_: object) -> None:
        raise Refusal(422, "multipart/form-data: expected files alone, found a field without a filename")

    if not boundary:
        raise Refusal(400, "multipart/form-data: expected a boundary in the Content-Type")
    if not body.rstrip().endswith(b"--" + boundary + b"--"):  # which the parser leaves open
        raise Refusal(400, "multipart/form-data: damaged (it does not end with its boundary)")
    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}  # a body is held already, and a file on disk could outlive it
    try:
        parser = FormParser("multipart/form-data", refuse, add, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"multipart/form-data: damaged ({error})") from error
    return files


def _of_part(file: FormFile) -> File:
    name = (file.file_name or b"").decode(errors="replace")
    file.file_object.seek(0)
    data = file.file_object.read()
    file.close()
    return File(name or "the picture", data)


def _of_json(body: bytes) -> list[File]:
    try:
        texts = Pictures.model_validate_json(body).pictures
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        status = 400 if first["type"] == "json_invalid" else 422
        raise Refusal(status, f'JSON: expected {{"pictures": ["base64", …]}}; {where}: {first["msg"]}') from error
    _check_count(len(texts))
    return [File(f"picture {number}", _of_text(text, f"picture {number}")) for number, text in enumerate(texts)]


def _of_text(text: str, name: str) -> bytes:
    """The bytes in base64, or in a data: URL."""
    if text.startswith("data:"):
        header, _, text = text.partition(",")
        if not header.endswith(";base64"):
            raise Refusal(422, f"{name}: expected a data: URL in base64, found {header[:80]!r}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, f"{name}: expected an image file in base64, or a data: URL ({error})") from error
