import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import POLICY, augmentation
from numpy.typing import NDArray
from pydantic import ValidationError

from frugalnet import files
from frugalnet.data import augment
from frugalnet.data.augment import contact_sheet, write_views
from frugalnet.data.config import AugmentConfig, Transform
from frugalnet.data.policy import check_policy
from frugalnet.errors import UserError
from frugalnet.training.batches import PerView


def policy(*transforms: dict[str, Any], views: int = 1, seed: int = 0) -> AugmentConfig:
    return AugmentConfig.model_validate({"views": views, "seed": seed, "policy": list(transforms)})


def pictures(n: int) -> NDArray[np.uint8]:
    """Each image a gradient of its own, lighter from left to right, with no pixel black."""
    x = np.linspace(60, 200, 64)[None, None, :, None] + np.arange(n)[:, None, None, None] % 40
    return np.broadcast_to(x, (n, 64, 64, 3)).astype(np.uint8)


def saved(path: Path, n: int) -> Path:
    np.save(path, pictures(n))
    return path


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    noisy = policy({"name": "GaussNoise", "p": 1.0}, *POLICY, views=2)
    images = saved(tmp_path / "images.npy", 1100)
    written = []
    for processes in (1, 3):
        write_views(images, tmp_path / "views", noisy, processes=processes)
        written.append(json.loads((tmp_path / "views/views.json").read_text()))
    assert written[0] == written[1]
    views = {f"view_{v}.npy": np.load(tmp_path / f"views/view_{v}.npy") for v in (0, 1)}
    assert written[0]["sha256"] == {
        name: [sha256(view[start : start + 1000].tobytes()).hexdigest() for start in (0, 1000)]
        for name, view in views.items()
    }
    assert len({part for parts in written[0]["sha256"].values() for part in parts}) == 4
    view = np.load(tmp_path / "views/view_1.npy")
    assert (view.shape, view.dtype) == ((1100, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(view[1000:], augment.augment(pictures(1100)[1000:], noisy, view=1, start=1000))


def test_a_task_holds_no_more_bytes_of_large_images_than_of_small_ones(tmp_path: Path) -> None:
    noisy = policy({"name": "GaussNoise", "p": 1.0}, views=1)
    large = np.random.default_rng(0).integers(0, 256, (130, 256, 256, 3), np.uint8)
    np.save(tmp_path / "images.npy", large)
    write_views(tmp_path / "images.npy", tmp_path / "views", noisy, processes=1)
    described = json.loads((tmp_path / "views/views.json").read_text())
    assert described["images_per_hash"] == 62
    assert 62 * large[0].nbytes <= 1000 * 64 * 64 * 3
    view = np.load(tmp_path / "views/view_0.npy")
    np.testing.assert_array_equal(view[124:], augment.augment(large[124:], noisy, view=0, start=124))
    assert PerView(tmp_path / "views").of_epoch(0, large).shape == large.shape  # the hashes are those of the parts


def test_what_it_makes_is_what_albumentations_makes() -> None:
    config = policy(
        *(t | {"p": max(t["p"], 0.5)} for t in POLICY[:3]),
        {"name": "RandomRotate90", "p": 0.5},  # its result is a view of its input
        {"name": "Affine", "p": 0.5, "shear": [-5, 5], "rotate": [-9, 9]},
        {"name": "ColorJitter", "p": 0.5},
        {"name": "ElasticTransform", "p": 0.3},  # draws as many numbers as the picture has pixels
        *(t | {"p": 0.5} for t in POLICY[3:]),
    )
    images, seeds = pictures(40), np.random.SeedSequence((0, 3, 1000)).generate_state(2)
    compose = augment.build_policy(config.policy)
    compose.set_random_state(np.random.default_rng(seeds[0]), random.Random(int(seeds[1])))
    expected = list(images)
    for transform in compose:
        expected = [transform(image=image)["image"] for image in expected]
    np.testing.assert_array_equal(augment.augment(images, config, view=3, start=1000), np.stack(expected))


def test_seed_view_and_position_each_change_the_pictures() -> None:
    images, config = pictures(50), augmentation()
    first = augment.augment(images, config, view=0, start=0)
    np.testing.assert_array_equal(first, augment.augment(images, config, view=0, start=0))
    for other in (
        augment.augment(images, augmentation(seed=1), view=0, start=0),
        augment.augment(images, config, view=1, start=0),
        augment.augment(images, config, view=0, start=1000),
    ):
        assert (first != other).any(axis=(1, 2, 3)).mean() > 0.8


def test_the_default_policy_does_as_often_what_it_says_and_one_thing_regardless_of_the_other() -> None:
    images = pictures(3000)
    views = augment.augment(images, augmentation(), view=0, start=0)
    holes = (views == 0).all(axis=3).any(axis=(1, 2))
    mirrored = views[:, 20:44, :20].mean(axis=(1, 2, 3)) > views[:, 20:44, 44:].mean(axis=(1, 2, 3))
    noisy = np.median(np.abs(np.diff(views.astype(int), n=2, axis=1)), axis=(1, 2, 3)) > 2
    assert holes.mean() == pytest.approx(0.2, abs=0.03)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.04)
    assert noisy.mean() == pytest.approx(0.1, abs=0.03)
    assert np.abs(np.corrcoef([holes, mirrored, noisy])[np.triu_indices(3, 1)]).max() < 0.08
    size = (views == 0).all(axis=3)[holes].sum(axis=(1, 2))
    assert size.max() <= 20 * 20


def test_transforms_draw_independently() -> None:
    images = pictures(2000) + np.arange(64, dtype=np.uint8)[None, :, None, None] // 4  # lighter downwards, too
    flips = policy({"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5})
    views = augment.augment(images, flips, view=0, start=0).astype(int)
    left_right, up_down = views[:, 0, 0, 0] > views[:, 0, 63, 0], views[:, 0, 0, 0] > views[:, 63, 0, 0]
    for one in (left_right, up_down, left_right ^ up_down):
        assert one.mean() == pytest.approx(0.5, abs=0.05)


def test_shifts_are_whole_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    shifting = policy(*POLICY[1:3])
    for image, view in zip(images, augment.augment(images, shifting, view=0, start=0), strict=True):
        padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect")
        assert any((padded[y : y + 64, x : x + 64] == view).all() for y in range(13) for x in range(13))


def test_no_views_leave_a_list_of_none_and_a_sheet_of_originals(tmp_path: Path) -> None:
    write_views(saved(tmp_path / "images.npy", 5), tmp_path / "views", augmentation(views=0), processes=0)
    assert [path.name for path in (tmp_path / "views").iterdir()] == ["views.json"]
    assert json.loads((tmp_path / "views/views.json").read_text())["sha256"] == {}
    contact_sheet(pictures(5), [], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_contact_sheet_is_the_same_each_time_and_grows_by_a_row_a_view(tmp_path: Path) -> None:
    import cv2

    for name, views in {"a": 2, "b": 2, "c": 0}.items():
        contact_sheet(pictures(40), [pictures(40)] * views, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    high, low = (cv2.imread(str(tmp_path / f"{name}.png")) for name in "ac")
    assert high is not None
    assert low is not None
    assert high.shape[0] > low.shape[0] + 128


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"name": "GausNoise", "p": 0.1},
            r"policy\.0\.name: .* no transform 'GausNoise' .*; did you mean GaussNoise\?",
        ),
        ({"name": "Compose", "p": 0.1}, r"policy\.0\.name: .* no transform 'Compose'"),
        ({"name": "GaussNoise", "p": 0.1, "std_rnge": [0, 0.1]}, r"policy\.0\.std_rnge: not an argument of GaussNoise"),
        ({"name": "GaussNoise", "p": 0.1, "std_range": [0, 9]}, r"policy\.0\.std_range: .*found: \[0, 9\]"),
        ({"name": "Rotate", "p": 0.1, "limit": "ten"}, r"policy\.0\.limit: .*'ten'"),
        (
            {"name": "CoarseDropout", "p": 0.2, "hole_height_range": [8, 65], "hole_width_range": [8, 9]},
            "hole larger than",
        ),
        ({"name": "RandomCrop", "p": 1.0, "height": 65, "width": 65}, r"policy\.0: RandomCrop fails on an image"),
        ({"name": "RandomCrop", "p": 0.5, "height": 60, "width": 60}, r"policy\.0\.p: .* has to be 1; found 0\.5"),
        ({"name": "RandomCrop", "p": 1.0, "height": 60, "width": 60}, r"images are uint8 \(60, 60, 3\) after it"),
        ({"name": "ToFloat", "p": 1.0}, r"images are float32 \(64, 64, 3\) after it"),
        ({"name": "CropAndPad", "p": 1.0}, r"policy\.0: .*px and percent"),  # of no single argument
        # They do nothing, run code, or need more than an image.
        ({"name": "NoOp", "p": 1.0}, r"policy\.0\.name: .* no transform 'NoOp' from image to image"),
        ({"name": "Lambda", "p": 1.0, "image": "print"}, r"policy\.0\.name: .* no transform 'Lambda'"),
        ({"name": "ToTensorV2", "p": 1.0}, r"policy\.0\.name: .* no transform 'ToTensorV2'"),
        ({"name": "Rotate", "p": 0.5, "limit": [0, 0]}, r"policy\.0: Rotate changes no image with these arguments"),
        ({"name": "FDA", "p": 0.5}, r"policy\.0: FDA fails on an image .*fda_metadata"),
        ({"name": "TextImage", "p": 0.5, "font_path": "/etc/passwd"}, r"policy\.0: TextImage fails .*metadata"),
        ({"name": "MaskDropout", "p": 0.5}, r"policy\.0: MaskDropout fails .*mask"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_and_the_key_named(transform: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_policy(policy(transform).policy)


def test_a_policy_is_judged_alike_each_time() -> None:
    # Of the sizes that it draws, 3 in 4 are too small for the crop.
    shrinking = {"name": "RandomScale", "p": 1.0, "scale_limit": [-0.3, 0.1]}
    said = set()
    for _ in range(5):
        with pytest.raises(UserError) as refusal:
            check_policy(policy(shrinking, {"name": "RandomCrop", "p": 1.0, "height": 64, "width": 64}).policy)
        said.add(str(refusal.value))
    assert len(said) == 1


def test_what_fails_only_on_a_later_image_is_refused_with_its_key_and_the_image() -> None:
    crop = {"name": "RandomCrop", "p": 1.0, "height": 64, "width": 64}
    untried = policy({"name": "RandomScale", "p": 0.2}, crop)
    with pytest.raises(UserError, match=r"^augment\.policy\.1: RandomCrop fails on image 20\d\d of view 3: Crop size"):
        augment.augment(pictures(40), untried, view=3, start=2000)
    untried = untried.model_copy(update={"policy": untried.policy[:1]})
    with pytest.raises(UserError, match=r"^augment\.policy: makes images of \(\d+, \d+, 3\) in view 3; crop or pad"):
        augment.augment(pictures(40), untried, view=3, start=2000)


def test_only_another_transform_that_can_be_used_is_suggested() -> None:
    import albumentations

    suggested = set()
    for name in [
        *dir(albumentations),
        "Lambd",
        "NoOps",
        "DualTransfrom",
        "__versoin__",
        "Compos",
        "Rotat",
        "Gauss_Noise",
    ]:
        with contextlib.suppress(UserError):
            augment.build_policy([Transform(name=name, p=0.5)])
            continue
        with pytest.raises(UserError) as refusal:
            augment.build_policy([Transform(name=name, p=0.5)])
        if match := re.search(r"did you mean (.*)\?$", str(refusal.value)):
            suggested.add(match[1])
            assert match[1] != name
    assert {"Rotate", "GaussNoise"} <= suggested
    for name in suggested:
        assert issubclass(
            getattr(albumentations, name), albumentations.ImageOnlyTransform | albumentations.DualTransform
        )
        assert not issubclass(getattr(albumentations, name), albumentations.NoOp)
        assert not name.startswith("_")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"views": -1}, "views"),
        ({"seed": -1}, "seed"),
        ({"veiws": 1}, "veiws"),
        ({"policy": [{"name": "Rotate", "p": 1.5}]}, r"policy\.0\.p"),
        ({"policy": [{"name": "Rotate"}]}, r"policy\.0\.p"),
        ({"policy": [{"p": 0.5}]}, r"policy\.0\.name"),
    ],
)
def test_an_impossible_value_is_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        augmentation(**values)


def test_too_small_a_disk_is_refused_before_any_work(tmp_path: Path) -> None:
    images = saved(tmp_path / "images.npy", 5)
    with pytest.raises(UserError, match=r"views: \d+ views take [\d,]+ bytes, only [\d,]+ are free"):
        write_views(images, tmp_path / "views", augmentation(views=10**12), processes=1)
    assert not (tmp_path / "views").exists()


@pytest.mark.parametrize("lost", ["view_0.npy", "view_1.npy", "views.json", "the end of view_1.npy"])
def test_what_is_not_whole_never_takes_the_folders_name(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_lose(path: Path, value: object) -> None:
        files.write_json(path, value)
        if lost.startswith("the end of"):
            os.truncate(path.parent / lost.split()[-1], 1000)
        else:
            (path.parent / lost).unlink()

    monkeypatch.setattr("frugalnet.data.augment.write_json", write_and_lose)
    images = saved(tmp_path / "images.npy", 5)
    with pytest.raises(UserError, match="was changed while the views were written"):
        write_views(images, tmp_path / "views", augmentation(views=2), processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def augmenting(folder: Path, config: AugmentConfig) -> list[str]:
    """The command that writes the views of images.npy."""
    (folder / "script.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom frugalnet.data.augment import write_views\n"
        "from frugalnet.data.config import AugmentConfig\n"
        "from frugalnet.errors import UserError\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        config = AugmentConfig.model_validate_json(sys.argv[1])\n"
        "        write_views(Path('images.npy'), Path('views'), config, processes=2)\n"
        "    except UserError as error:\n"
        "        sys.exit(str(error))\n"
    )
    return [sys.executable, str(folder / "script.py"), config.model_dump_json()]


def test_a_process_that_is_killed_as_it_starts_is_said_in_one_line(tmp_path: Path) -> None:
    saved(tmp_path / "images.npy", 1100)
    command = augmenting(tmp_path, augmentation(views=2))
    for _ in range(5):
        parent = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        killed = False
        while not killed:
            assert parent.poll() is None, "it was done before its process could be killed"
            with contextlib.suppress(psutil.NoSuchProcess):  # another one, which has ended
                for process in psutil.Process(parent.pid).children():
                    if "forkserver" in " ".join(process.cmdline()):
                        process.kill()
                        killed = True
        told = parent.communicate(timeout=60)[1]
        if parent.returncode != 0:
            break
        shutil.rmtree(tmp_path / "views")  # it had answered already, and was about to end
    assert told == "an augmenting process was killed, short of memory?; try fewer compute.processes\n"
    assert parent.returncode == 1
    assert not (tmp_path / "views").exists()


def test_killed_and_run_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images = saved(tmp_path / "images.npy", 1100)
    config = augmentation(views=2)
    command = augmenting(tmp_path, config)
    killed = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    while not [p for p in tmp_path.glob("views.*.partial/view_0.npy") if p.stat().st_size > 1000]:
        assert killed.poll() is None, "it was done before it could be killed"
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "views").exists()
    deadline = time.monotonic() + 30
    while subprocess.run(["pgrep", "-s", str(killed.pid)], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < deadline, "processes of the killed run live on"
        time.sleep(0.05)
    for folder in ("views", "other"):
        write_views(images, tmp_path / folder, config, processes=2)
    assert (tmp_path / "views/views.json").read_bytes() == (tmp_path / "other/views.json").read_bytes()
    assert not list(tmp_path.glob("*.partial"))
