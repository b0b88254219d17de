"""The model of epoch time with many workers, on cases that can be worked out by hand."""

import pytest

from benchmarks.distributed import Exchange, all_reduce_seconds, epoch_seconds, stops_scaling

GIGABIT = 1e9 / 8  # bytes


def test_an_all_reduce_crosses_each_link_with_almost_twice_its_bytes_in_two_rounds_for_each_doubling():
    assert all_reduce_seconds(GIGABIT, 1, workers=1, gigabits=1, latency=1) == 0
    assert all_reduce_seconds(GIGABIT, 0, workers=2, gigabits=1, latency=1) == 1
    assert all_reduce_seconds(GIGABIT, 0, workers=4, gigabits=10, latency=1) == pytest.approx(0.15)
    assert all_reduce_seconds(0, 3, workers=8, gigabits=1, latency=0.5) == 3 * 2 * 3 * 0.5


def test_an_epoch_is_the_share_of_its_images_and_what_is_said():
    step, exchange = Exchange(GIGABIT / 100, 0), Exchange(GIGABIT, 0)
    seconds = epoch_seconds(1000, 100, 0.1, step, exchange, gigabits=1, latency=0)
    together, each = seconds["DDP, 100 images a step together"], seconds["DDP, 100 images a step each"]
    assert together[1] == each[1] == 100
    assert together[2] == pytest.approx(50 + 10 * 0.01)
    assert each[2] == pytest.approx(50 + 5 * 0.01)
    assert max(together) == 32  # two images each: no more than 50 workers
    assert seconds["global network, T = 1"][4] == pytest.approx(25 + 1.5)
    assert seconds["global network, T = 5"][4] == pytest.approx(25 + 1.5 / 5)


def test_scaling_stops_where_workers_are_used_less_than_half():
    assert stops_scaling({1: 8.0, 2: 4.0, 4: 3.0, 8: 3.0}) == 4
