"""Archives and parameters made by mutation: the right result, or one clear line, in bounded memory and time.

HYPOTHESIS_PROFILE=nightly tries 500 examples of each instead of a few.
"""

import io
import json
import signal
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
from archives import IDS, ROOT, Members
from dvc.utils.hydra import compose_and_dump
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from frugalnet import config
from frugalnet.data.decode import decode
from frugalnet.data.layout import read_layout
from frugalnet.data.members import open_archive, read_member
from frugalnet.errors import UserError

PROJECT = Path(__file__).parents[1]
MAX_UNPACKED_BYTES = 10_000_000
BOUND_BYTES = 150_000_000  # what is decompressed at a time can inflate to 30 MB
HANGS_AFTER_SECONDS = 30  # of processor time; an example takes hundredths
pytestmark = [
    pytest.mark.filterwarnings("default"),  # of zipfile, on duplicates
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux does"),
]
# What a session's or a module's fixtures make is not changed by an example, and shrinking takes longer than reading.
of_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)


def memory_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


@contextmanager
def bounded() -> Iterator[None]:
    """Fails if the block allocates too much or takes so long that it may never end."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"more than {HANGS_AFTER_SECONDS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_AFTER_SECONDS)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory begins anew
    began = memory_bytes("VmRSS")
    try:
        yield
        assert memory_bytes("VmHWM") - began < BOUND_BYTES
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def assert_one_clear_line(error: UserError) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.isprintable()
    assert 10 < len(message) < 2000
    assert "Traceback" not in message


# Archives

NAMES = ["wnids.txt", "words.txt", "val/val_annotations.txt", f"train/{IDS[0]}/images/{IDS[0]}_2.JPEG"]
odd_names = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "/", "../x", "a\\b", "C:x", "x/", f"{ROOT}", f"{ROOT}train//x", "é\u202e\x1b[31m", "9" * 5000]
    ),
    st.sampled_from([f"train/{IDS[0]}/images/{IDS[1]}_0.JPEG", f"train/{IDS[0]}/images/", "val/images/val_0.JPEG"]),
)
damage = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "delete", "insert", "truncate"]), st.floats(0, 1), st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, value in changes:
        at = int(where * len(data))
        match kind:
            case "flip":
                data = data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 1]) + data[at + 1 :]
            case "set":
                data = data[:at] + value + data[at + len(value) :]
            case "delete":
                data = data[:at] + data[at + len(value) :]
            case "insert":
                data = data[:at] + value + data[at:]
            case "truncate":
                data = data[:at]
    return data


member_change = st.one_of(
    st.tuples(st.just("remove"), st.floats(0, 0.99)),
    st.tuples(st.just("rename"), st.floats(0, 0.99), odd_names),
    st.tuples(st.just("add"), odd_names, st.binary(max_size=200)),
    st.tuples(st.just("twice"), st.floats(0, 0.99)),
    st.tuples(st.just("content"), st.floats(0, 0.99), damage),
    st.tuples(st.just("text"), st.sampled_from(NAMES[:3]), damage),
    st.tuples(st.just("swap"), st.floats(0, 0.99), st.floats(0, 0.99)),
    st.tuples(st.just("size"), st.floats(0, 0.99), st.sampled_from([0, 1_000_000, 200_000_000])),
)
# What an entry of the directory declares, by its offset in it: version, flags, method, CRC, sizes, kind, place.
FIELDS = {6: 2, 8: 2, 10: 2, 16: 4, 20: 4, 24: 4, 28: 2, 30: 2, 32: 2, 34: 2, 38: 4, 42: 4}
declared = st.tuples(
    st.floats(0, 0.99),
    st.sampled_from(sorted(FIELDS)),
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 8, 9, 12, 14, 93, 99, 2**16 - 1, 2**31, 2**32 - 1])),
)


@st.composite
def archives(draw: st.DrawFn, small: Members) -> bytes:
    """A correct archive, its members changed, then what its directory declares, then its bytes; or none of that."""
    members = [(ROOT + name, data) for name, data in small.items()]
    for change in draw(st.lists(member_change, max_size=3)):
        at = int(change[1] * len(members)) if isinstance(change[1], float) else 0
        match change:
            case ("remove", _) if len(members) > 1:
                del members[at]
            case ("rename", _, name):
                members[at] = (draw(st.sampled_from([ROOT, ""])) + name, members[at][1])
            case ("add", name, data):
                members.append((draw(st.sampled_from([ROOT, ""])) + name, data))
            case ("twice", _):
                members.append(members[at])
            case ("content", _, changes):
                members[at] = (members[at][0], damaged(members[at][1], changes))
            case ("text", name, changes):
                members = [(n, damaged(data, changes) if n == ROOT + name else data) for n, data in members]
            case ("swap", _, other):
                other_at = int(other * len(members))
                members[at], members[other_at] = (
                    (members[at][0], members[other_at][1]),
                    (members[other_at][0], members[at][1]),
                )
            case ("size", _, size):
                members[at] = (members[at][0], bytes(size))
    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    one_method = draw(st.none() | methods)
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # duplicates are meant
        for name, data in members:
            method = zipfile.ZIP_DEFLATED if len(data) > 10**6 else draw(methods) if one_method is None else one_method
            archive.writestr(zipfile.ZipInfo(name.encode(errors="replace").decode() or "x"), data, method)
    data = bytearray(file.getvalue())
    for where, field, value in draw(st.lists(declared, max_size=2)):
        entries = [at for at in range(len(data) - 46) if data[at : at + 4] == b"PK\1\2"]
        at = entries[int(where * len(entries))] + field
        data[at : at + FIELDS[field]] = value.to_bytes(4, "little")[: FIELDS[field]]
    return damaged(bytes(data), draw(st.just([]) | damage))


def images_of(archive: Path) -> dict[str, list[np.ndarray]]:
    """What `normalise` makes of an archive: the images by split and class, in their order."""
    layout = read_layout(archive, MAX_UNPACKED_BYTES)
    with open_archive(archive) as zip_file:
        return {
            f"{split} {class_id}": [decode(read_member(zip_file, member), member) for member in members]
            for split in ("train", "validation")
            for class_id, members in zip(layout.class_ids, getattr(layout, split), strict=True)
        }


def rightly(archive: Path) -> dict[str, list[bytes]]:
    """The image files of an archive that was accepted, by split and class, in no order; read in the plainest way."""
    with zipfile.ZipFile(archive) as zip_file:
        ids = zip_file.read(f"{ROOT}wnids.txt").decode("utf-8-sig").split()
        rows = zip_file.read(f"{ROOT}val/val_annotations.txt").decode("utf-8-sig").splitlines()
        classes = {row.split("\t")[0].strip(): row.split("\t")[1].strip() for row in rows if row.strip()}
        files = [name for name in zip_file.namelist() if not name.endswith("/")]
        files = [name for name in files if not name.rpartition("/")[2].startswith(("._", ".DS_Store", "Thumbs.db"))]
        found: dict[str, list[bytes]] = {f"{split} {one}": [] for split in ("train", "validation") for one in ids}
        for name in files:
            if name.startswith(f"{ROOT}train/") and "/images/" in name:
                found[f"train {name.split('/')[2]}"].append(zip_file.read(name))
            elif name.startswith(f"{ROOT}val/images/"):
                found[f"validation {classes[name.removeprefix(f'{ROOT}val/images/')]}"].append(zip_file.read(name))
    return found


@of_fixtures
@given(data=st.data())
def test_a_mutated_archive_gives_its_images_or_one_clear_line(data: st.DataObject, small: Members) -> None:
    content = data.draw(archives(small))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "a.zip"
        archive.write_bytes(content)
        try:
            with bounded():
                images = images_of(archive)
        except UserError as error:
            assert_one_clear_line(error)
            return
        assert all(images.values())
        for key, files in rightly(archive).items():
            pixels = [cv2.cvtColor(cv2.imdecode(np.frombuffer(f, np.uint8), 1), cv2.COLOR_BGR2RGB) for f in files]
            assert sorted(map(bytes, pixels)) == sorted(map(bytes, images.pop(key)))
        assert images == {}


# Parameters

odd_values = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, 1e-300, 1e300, "", "0; touch x", "$x$", "a\nb", "auto"]),
    st.sampled_from([[], {}, [[]], [0] * 1000, list(range(5000)), {"a": {"b": 1}}, "x" * 10_000]),
    st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=4),
    st.dictionaries(st.text(max_size=5) | st.integers(), st.integers(), max_size=3),
).map(deepcopy)  # for `mutated` changes them
GROUPS = [f"{path.parent.name}={path.stem}" for path in sorted(PROJECT.glob("conf/*/*.yaml"))]
GROUPS = ["model=depthwise", *(group for group in GROUPS if not group.startswith("model="))]
YAML_TEXT = r"""
&a |*a|!!python/object:os.system |!!binary |!!set |<<: |---\n|...\n|\t|\x00|\ufeff|? |- |: |[|{|}|'|"|>\n|%YAML 1.1\n
|1:30:00|2001-01-01|.nan|0o17|\\ud800|!!int |!!float |!!timestamp |!!omap |!!bool |!!null |!!seq |!!map |\x85|#
"""
yaml_text = st.sampled_from(
    [*YAML_TEXT.strip().replace("\n|", "|").encode().decode("unicode_escape").split("|"), "9" * 5000]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, tree: dict[str, Any]) -> dict[str, Any]:
    """The parameters with some values replaced, removed, added or repeated."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from(places(tree)[1:]))
        parent: Any = tree
        for step in path:
            parent = parent[step]
        match draw(st.sampled_from(["replace", "near", "remove", "add", "repeat"])):
            case "replace":
                parent[key] = draw(odd_values)
            case "near" if isinstance(parent[key], int | float):
                parent[key] = draw(st.sampled_from([-1, 0, 0.5, 1, 2, 10**4, 10**9])) * parent[key]
            case "remove":
                del parent[key]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(min_size=1, max_size=5))] = draw(odd_values)
            case "repeat" if isinstance(parent, list):
                parent.append(parent[key])
    return tree


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What conf/ composes with each choice of each group. One network: each is tried whenever parameters are read."""
    path, found = tmp_path_factory.mktemp("conf") / "params.yaml", {}
    for choice in GROUPS:
        compose_and_dump(path, str(PROJECT / "conf"), None, "config", "", ["model=depthwise", choice])
        found[choice] = YAML(typ="safe").load(path)
    return found


def loaded(path: Path) -> config.Params | None:
    try:
        with bounded():
            return config.read_params(path)
    except UserError as error:
        assert_one_clear_line(error)
        return None


def assert_says(params: config.Params, tree: Any) -> None:
    """The parameters are those of the file, none lost, added or changed."""
    assert json.loads(params.model_dump_json()) == json.loads(json.dumps(tree))


@of_fixtures
@given(data=st.data())
def test_mutated_parameters_are_read_as_they_stand_or_refused_in_one_clear_line(
    data: st.DataObject, composed: dict[str, dict[str, Any]]
) -> None:
    tree = data.draw(mutated(composed[data.draw(st.sampled_from(GROUPS))]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(tree, file)
        if params := loaded(path):
            assert_says(params, tree)


@of_fixtures
@given(data=st.data())
def test_a_mutated_parameter_file_is_read_as_it_stands_or_refused_in_one_clear_line(data: st.DataObject) -> None:
    lines = (PROJECT / "params.yaml").read_text().replace("- alexnet\n  - depthwise", "- depthwise").splitlines(True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["insert", "before", "remove", "repeat", "move", "indent"])):
            case "insert":
                column = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:column] + data.draw(yaml_text | st.text(max_size=3)) + lines[at][column:]
            case "before":
                start, colon, value = lines[at].partition(": ")
                lines[at] = start + colon + data.draw(yaml_text) + value
            case "remove" if len(lines) > 1:
                del lines[at]
            case "repeat":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case "indent":
                lines[at] = " " * data.draw(st.integers(0, 8)) + lines[at].lstrip()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
        if params := loaded(path):
            assert_says(params, YAML(typ="safe").load(path.read_text(encoding="utf-8")))


@st.composite
def transforms(draw: st.DrawFn) -> dict[str, Any]:
    """A transform, its name and arguments from albumentations, the values odd."""
    import inspect

    import albumentations

    names = [name for name in dir(albumentations) if isinstance(getattr(albumentations, name), type)]
    name = draw(st.sampled_from(names))
    known = list(inspect.signature(getattr(albumentations, name)).parameters)
    number = st.integers(-20, 20) | st.floats(-2, 2)  # a policy is tried without a bound on memory
    pair = st.tuples(number, number).map(sorted)
    other = st.none() | st.booleans() | st.text(max_size=10) | st.sampled_from([[], {}, [[]], {"a": {"b": 1}}, "auto"])
    arguments = draw(
        st.dictionaries(st.sampled_from(known), number | pair | other, max_size=3) if known else st.just({})
    )
    return {**arguments, "name": name, "p": draw(st.sampled_from([0.0, 0.5, 1.0]))}


@of_fixtures
@given(data=st.data())
def test_a_policy_of_odd_transforms_is_accepted_and_works_or_is_refused_in_one_clear_line(
    data: st.DataObject, composed: dict[str, dict[str, Any]]
) -> None:
    from frugalnet.data.augment import augment
    from frugalnet.data.policy import check_policy

    tree = deepcopy(composed["data=sample"])
    tree["augment"]["policy"].insert(data.draw(st.integers(0, 6)), data.draw(transforms()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(tree, file)
        params = loaded(path)
    if params:
        try:
            check_policy(params.augment.policy)
        except UserError as error:
            assert_one_clear_line(error)
            return
        images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
        try:
            assert augment(images, params.augment, view=0, start=0).shape == images.shape
        except UserError as error:  # with numbers drawn that the trial did not draw
            assert_one_clear_line(error)
