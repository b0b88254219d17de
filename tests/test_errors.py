import errno
import sys

import pytest

from frugalnet.errors import UserError, run_stage


def stage(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/project/pipeline/train.py", *words])


@pytest.mark.parametrize("words", [["depthwise"], ["depthwise", "first"], ["depthwise", "0", "1"]])
def test_a_stage_says_what_words_it_takes(monkeypatch, words):
    def main(model: str, seed: int) -> None:
        raise AssertionError("it was called")

    stage(monkeypatch, *words)
    with pytest.raises(SystemExit, match=r"^usage: python -m pipeline\.train MODEL SEED$"):
        run_stage(main)


def test_a_stage_is_given_its_words_as_what_they_mean(monkeypatch):
    given = []
    stage(monkeypatch, "depthwise", "7")

    def main(model: str, seed: int) -> None:
        given.append((model, seed))

    run_stage(main)
    assert given == [("depthwise", 7)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("a key: wrong"), "train: a key: wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), "train: No space left on device: a.npy"),
        (OSError("no number"), "train: no number"),
    ],
)
def test_a_mistake_ends_a_stage_in_one_line(monkeypatch, error, said):
    def main() -> None:
        raise error

    stage(monkeypatch)
    with pytest.raises(SystemExit) as end:
        run_stage(main)
    assert end.value.code == said
