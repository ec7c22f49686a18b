"""Paired differences and their intervals, against slow references."""

import numpy as np
import pytest

from study.paired import by_unit, over_backbones, paired_difference


def test_difference_is_the_mean_over_videos_of_all_splits():
    rng = np.random.default_rng(0)
    splits = [rng.integers(-1, 2, (2, n, 3)).astype(float) for n in (30, 50)]
    result = paired_difference(splits, [range(30), range(50)], samples=100)
    videos = np.concatenate([split.mean(axis=0) for split in splits])
    assert np.allclose(result.mean, 100 * videos.mean(axis=0))
    runs = [run.mean(axis=0) for split in splits for run in split]
    assert np.allclose(result.std_over_runs, 100 * np.std(runs, axis=0, ddof=1))


def test_interval_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    values = rng.choice([-1.0, 0.0, 1.0], (1, 200, 1), p=[0.1, 0.6, 0.3])
    result = paired_difference([values], [range(200)])
    slow = [100 * rng.choice(values[0, :, 0], 200).mean() for _ in range(10_000)]
    # Of 10,000 draws the percentile's own error is about 0.1 points here; steps are 0.5 points.
    assert result.low[0] == pytest.approx(np.percentile(slow, 2.5), abs=0.6)
    assert result.high[0] == pytest.approx(np.percentile(slow, 97.5), abs=0.6)


def test_videos_of_one_group_are_drawn_together():
    """Ten copies of each of 20 videos tell no more than the 20 videos."""
    values = np.random.default_rng(2).choice([-1.0, 1.0], (1, 20, 1))
    copies = np.repeat(values, 10, axis=1)
    alone = paired_difference([values], [range(20)])
    together = paired_difference([copies], [np.repeat(range(20), 10)])
    apart = paired_difference([copies], [range(200)])
    assert together.low == alone.low and together.high == alone.high
    assert apart.high - apart.low < (alone.high - alone.low) / 2


def slow_hierarchy(splits, backbones, groups, samples, rng):
    found = []
    for _ in range(samples):
        drawn = {}
        for split, names in zip(splits, groups):
            drawn.setdefault(split, rng.choice(np.unique(names), len(np.unique(names))))
        means = []
        for b in rng.integers(len(backbones), size=len(backbones)):
            values = backbones[b].mean(axis=0)[:, 0]
            of_split = drawn[splits[b]]
            videos = [values[i] for g in of_split for i in np.flatnonzero(groups[b] == g)]
            means.append(np.mean(videos))
        found.append(100 * np.mean(means))
    return np.percentile(found, [2.5, 97.5])


def test_interval_over_backbones_is_that_of_a_slow_hierarchical_bootstrap():
    rng = np.random.default_rng(4)
    backbones = [
        rng.choice([-1.0, 0.0, 1.0], (2, n, 1), p=[0.2 - b / 20, 0.5, 0.3 + b / 20])
        for b, n in enumerate([40, 60, 60])
    ]
    groups = [rng.integers(0, 12, n) for n in (40, 60)]
    groups.append(groups[1])
    result = over_backbones("abb", list(map(by_unit, backbones, groups)))
    low, high = slow_hierarchy("abb", backbones, groups, 4000, rng)
    assert result.mean[0] == pytest.approx(100 * np.mean([b.mean() for b in backbones]))
    assert result.low[0] == pytest.approx(low, abs=1) and result.high[0] == pytest.approx(
        high, abs=1
    )
    spread = np.std([100 * b.mean() for b in backbones], ddof=1)
    assert result.std_over_runs[0] == pytest.approx(spread)
    videos = paired_difference(backbones, groups)
    assert result.high - result.low > videos.high - videos.low, "backbones add their own spread"


def test_backbones_of_one_split_see_the_same_videos_drawn():
    """Nine backbones that say the same tell no more than one of each split."""
    rng = np.random.default_rng(5)
    names = [f"r{unit}" for unit in range(30)]
    units = [by_unit(rng.choice([-1.0, 1.0], (1, 30, 1)), names) for _ in "abc"]
    one = over_backbones("abc", units)
    three = over_backbones([*"abc"] * 3, units * 3)
    apart = over_backbones("abcdefghi", units * 3)
    means = [100 * own.mean for own in units]
    for result in (one, three, apart):
        assert result.mean == pytest.approx(np.mean(means))
        splits = 3 if result is not apart else 9
        assert result.std_over_splits == pytest.approx(np.std(means * (splits // 3), ddof=1))
    assert np.isnan(over_backbones("aaa", units).std_over_splits)
    fixed = [units[0]] * 3
    width = {
        splits: float(np.ptp([r.low, r.high]))
        for splits in ("aaa", "abc")
        for r in [over_backbones(splits, fixed)]
    }
    # Of three draws of three backbones the shares' squares sum to 5/9 on average.
    assert width["aaa"] == pytest.approx(width["abc"] * (9 / 5) ** 0.5, rel=0.1)


def test_a_unit_that_a_backbone_lacks_weighs_nothing_there():
    full = by_unit(np.ones((1, 4, 1)), list("abcd"))
    part = by_unit(np.ones((1, 2, 1)), list("bd"))
    result = over_backbones(["s", "s"], [full, part])
    assert (result.mean, result.low, result.high) == (100, 100, 100)


def test_a_difference_that_all_videos_share_has_no_interval():
    """However unequal the classes' weights are."""
    sizes = (40, 20, 10, 5, 2)
    weights = np.concatenate([np.full(n, 1 / n) for n in sizes])
    ones, names = np.ones((1, len(weights), 1)), [f"v{n}" for n in range(len(weights))]
    for result in (
        paired_difference([ones], [names], [weights]),
        over_backbones("ab", [by_unit(ones, names, weights)] * 2),
    ):
        for value in (result.mean, result.low, result.high):
            assert value == pytest.approx(100)
