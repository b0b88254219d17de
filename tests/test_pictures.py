import cv2
import fake_results
import numpy as np

from frugalnet.report import pictures


def test_best_and_worst_is_a_picture_and_the_same_every_time(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 12
    logits = generator.normal(size=(600, 12)).astype(np.float16)
    logits[np.arange(600), labels] += np.linspace(3, 0, 12)[labels].astype(np.float16)
    names = ["a $dollar$ name", *fake_results.class_names(12)[1:]]
    for name in ("one.png", "two.png"):
        pictures.best_and_worst(fake_results.images(), logits, labels, names, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "one.png"))
    assert picture is not None
    assert picture.shape[0] > 1000
    assert picture.shape[1] > 800


def test_best_and_worst_stands_few_classes_and_all_right(tmp_path):
    labels = np.array([0, 1, 0, 1])
    pictures.best_and_worst(fake_results.images(4), np.eye(2)[labels], labels, ["ant", "bee"], tmp_path / "few.png")
    assert (tmp_path / "few.png").is_file()


def test_confusion_draws_many_classes_without_their_names(tmp_path):
    pictures.confusion(np.random.default_rng(0).integers(0, 5, (60, 60)), ["x"] * 60, tmp_path / "c.png")
    assert cv2.imread(str(tmp_path / "c.png")) is not None
