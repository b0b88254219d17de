import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from hydra.errors import HydraException

from frugalnet import config
from frugalnet.data.policy import check_policy
from frugalnet.errors import UserError

ROOT = Path(__file__).parents[1]
DEEP = 2 * sys.getrecursionlimit()  # levels that no parser follows


def compose(path: Path, *overrides: str) -> Path:
    compose_and_dump(path, str(ROOT / "conf"), None, "config", "", list(overrides))
    return path


def test_params_yaml_is_what_conf_composes(tmp_path):
    # As it is staged: in the work tree, `dvc exp run -S …` leaves its own.
    staged = subprocess.check_output(["git", "show", ":params.yaml"], cwd=ROOT, text=True)
    assert staged == compose(tmp_path / "params.yaml").read_text(), "run `make params` and `git add params.yaml`"


@pytest.mark.parametrize(
    "choice",
    [f"{group.parent.name}={group.stem}" for group in sorted(ROOT.glob("conf/*/*.yaml"))],
)
def test_every_choice_of_every_group_is_valid(tmp_path, choice):
    group, _, name = choice.partition("=")
    chosen = [choice]
    if group == "teacher" and name != "none":
        chosen.append("train=distilled")  # a teacher needs a recipe that learns from it
    if group == "train" and name.startswith("distilled"):
        chosen.append("teacher=alexnet")
    if choice == "data=folder":
        chosen.append("data.path=/pictures")
    params = config.read_params(compose(tmp_path / "params.yaml", *chosen))
    if group == "augment":
        check_policy(params.augment.policy)


@pytest.mark.parametrize("augment", ["views", "light"])
@pytest.mark.parametrize("side", [32, 96, 256])
def test_crop_and_full_resolution_follow_the_side(tmp_path, side, augment):
    chosen = [f"data.side={side}", f"augment={augment}"]
    params = config.read_params(compose(tmp_path / "params.yaml", *chosen))
    assert params.train.resolutions == [side]
    check_policy(params.augment.policy, params.data.side)


@pytest.mark.parametrize(
    ("override", "key", "reason"),
    [
        ("train.epochs=-1", "train.epochs", "greater than or equal to 1"),
        ("train.epochs=many", "train.epochs", "valid integer"),
        ("train.epochs=2.5", "train.epochs", "valid integer"),
        ("train.learning_rate=inf", "train.learning_rate", "finite"),
        ("train.optimiser=lion", "train.optimiser", "'sgd', 'adamw' or 'muon'"),
        ("+train.epoch=3", "train.epoch", "not permitted"),
        ("+nonsense=1", "nonsense", "not permitted"),
        ("~seeds", "seeds", "required"),
        ("seeds=[]", "seeds", "at least 1 item"),
        ("seeds=[-1]", "seeds.0", "greater than or equal to 0"),
        ("seeds=[0,0]", "seeds", "0 appears 2 times"),
        ("model.names=[alexnett]", "model.names", "'alexnett' is not one of: alexnet, depthwise"),
        ("model.names=[residual,residual]", "model.names", "residual appears 2 times"),
        ("compute.device=tpu", "compute.device", "auto|cpu|cuda(:"),
        ("compute.device='cuda:'", "compute.device", "auto|cpu|cuda(:"),
        ("data.md5=abc", "data.md5", "pattern"),
        ("data.classes=1", "data.classes", "greater than or equal to 2"),
        ("data.side=31", "data.side", "greater than or equal to 32"),
        ("data.side=257", "data.side", "less than or equal to 256"),
        ("data.side=32 train=speedrun", "train", "48, 32] enlarge the images, data.side is 32"),
        ("train=speedrun train.epochs=3", "train.resolutions", "4 sizes for 3 epochs"),
        ("~augment.views", "augment.views", "required"),
        ("~measure.rounds", "measure.rounds", "required"),
        ("augment.views=-1", "augment.views", "greater than or equal to 0"),
        ("compute.threads=100000", "compute.threads", "less than or equal to 1024"),
        ("compute.processes=100000", "compute.processes", "less than or equal to 1024"),
        ("train.batch_size=1000000000", "train.batch_size", "less than or equal to 100000"),
        ("seeds=[9223372036854775808]", "seeds.0", "less than 9223372036854775808"),
        ("seeds=['0;touch_x']", "seeds.0", "valid integer"),
        ("train.ema_decay=1", "train.ema_decay", "less than 1"),
        ("train.distillation=0.5", "teacher", "the teacher is None, but train.distillation is 0.5"),
        ("teacher.model=alexnet", "teacher", "give model, weights and sha256"),
        ("teacher.others=[{model:alexnet,weights:w,sha256:s}]", "teacher", "others are averaged with teacher.model"),
        ("teacher={model:alexnett,weights:w,sha256:s} train.distillation=1", "teacher.model", "not one of: alexnet"),
        ("distributed=ddp train.optimiser=muon", "distributed", "several workers do not support muon: use one process"),
        ("distributed=ddp train.ema_decay=0.9", "distributed", "several workers do not support train.ema_decay"),
        ("compute.compile=on", "compute.compile", "'auto', 'off'"),
        *((f"data.name={name}", "data.name", "pattern") for name in ("'a:b'", "../a", "'<b>'", "a" * 240, "''")),
        ("data.name=weights", "data.name", "choose another"),
        ("train.recipe=../modern", "train.recipe", "pattern"),
        ("launch.timeout_minutes=1e300", "launch.timeout_minutes", "less than or equal to 100000"),
        ("launch.timeout_minutes=1e-9", "launch.timeout_minutes", "greater than or equal to 0.01"),
        ("budget.macs=0", "budget.macs", "greater than 0"),
        ("budget.macs=4Mi", "budget.macs", "expected a number, as 4000000, 4M, 100k or 1.5G; found '4Mi'"),
        ("+budget.joules=1", "budget.joules", "not permitted"),
        ("augment.policy.0.p=1.5", "augment.policy.0.p", "less than or equal to 1"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name_with_the_reason(tmp_path, override, key, reason):
    path = compose(tmp_path / "params.yaml", *override.split())
    with pytest.raises(UserError) as refusal:
        config.read_params(path)
    assert key in str(refusal.value)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_budget_may_be_written_with_prefixes(tmp_path):
    params = config.read_params(compose(tmp_path / "params.yaml", "budget.macs=4M", "budget.latency_ms=0.5"))
    assert params.budget.limits == {"macs": 4e6, "latency_ms": 0.5}
    assert config.read_params(compose(tmp_path / "params.yaml")).budget.limits == {}


def test_an_unknown_choice_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(HydraException, match=r"(?s)alexnett.*alexnet\n.*depthwise"):
        compose(tmp_path / "params.yaml", "model=alexnett")


def test_a_number_in_scientific_notation_is_a_number(tmp_path):
    path = compose(tmp_path / "params.yaml")
    path.write_text(path.read_text().replace("weight_decay: 0.0005", "weight_decay: 5e-4"))
    assert config.read_params(path).train.weight_decay == 5e-4


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"a: [", b"- 1", b"a: caf\xe9", b"a: &a [*a]\n"),
        *(b"[" * DEEP + b"]" * DEEP, b"a: " + b"{a: " * DEEP + b"1" + b"}" * DEEP),
        *(b"a: !!int many", b"a: !!int ''", b"a: " + b"9" * 5000, b"a: 2001-01-01", b"a: !!python/name:os.system"),
    ],
    ids=[
        *("empty", "open", "list", "latin-1", "circular", "deep lists", "deep mappings"),
        *("a word as a number", "nothing as a number", "5,000 digits", "date", "Python object"),
    ],
)
def test_a_file_that_is_not_parameters_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"^[^\n]*params.yaml: [^\n]*$"):
        config.read_params(tmp_path / "params.yaml")


def test_of_very_many_errors_the_first_are_told_and_long_lists_are_checked_soon(tmp_path):
    path = compose(tmp_path / "params.yaml")
    text = path.read_text()
    path.write_text(text.replace("seeds:\n- 0\n", f"seeds: {[-1] * 1000}\n"))
    with pytest.raises(UserError, match=r"seeds\.9: .*; and 990 more$"):
        config.read_params(path)
    path.write_text(text.replace("seeds:\n- 0\n", f"seeds: {[*range(20_000), 7]}\n"))
    with pytest.raises(UserError, match=r"seeds: .*7 appears 2 times"):
        config.read_params(path)


def test_what_pydantic_quotes_is_cut(tmp_path):
    path = compose(tmp_path / "params.yaml")
    path.write_text(path.read_text().replace("kind: none", f"kind: {[0] * 1000}"))
    with pytest.raises(UserError, match=r"distributed: Input tag '\[0, .{0,400}$"):
        config.read_params(path)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs=0", "params.yaml: train.epochs"),
        ("augment.policy.0.name=Flop", "augment.policy.0.name"),
        ("+augment.policy.0.probability=0.5", "augment.policy.0.probability"),
        ("augment.policy.5.hole_height_range=[8,65]", "augment.policy.5.hole_height_range"),
    ],
)
def test_a_stage_refuses_wrong_parameters_before_any_work_without_a_traceback(tmp_path, override, key):
    compose(tmp_path / "params.yaml", override)
    stage = subprocess.run(
        [sys.executable, "-m", "pipeline.check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert stage.returncode == 1
    assert stage.stderr.startswith(f"check: {key}: ")
    assert stage.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


HEAVY = ("torch", "mlflow", "cv2", "numpy", "albumentations", "requests", "tqdm")


def test_the_settings_of_the_data_import_nothing_heavy():
    code = f"import sys, frugalnet.data.config; sys.exit(' '.join({{*{HEAVY}}} & {{*sys.modules}}) or None)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)


def test_what_a_finished_download_needs_imports_neither_the_network_nor_albumentations():
    code = (
        "import sys, frugalnet.data.download, frugalnet.data.policy\n"
        f"sys.exit(' '.join({{*{HEAVY}}} - {{'numpy', 'tqdm'}} & {{*sys.modules}}) or None)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)


@pytest.mark.parametrize("line", ["  latency_ms: null", "  balance: none", "  start: random", "  epochs: 30"])
def test_a_parameter_that_is_missing_is_not_replaced_by_a_default(tmp_path, line):
    text = compose(tmp_path / "params.yaml").read_text()
    assert f"{line}\n" in text
    (tmp_path / "params.yaml").write_text(text.replace(f"{line}\n", ""))
    with pytest.raises(UserError, match=rf"\.{line.split(':')[0].strip()}: (missing|Field required)"):
        config.read_params(tmp_path / "params.yaml")
