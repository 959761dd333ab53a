from __future__ import annotations

import math

import pytest
from tests.project import run_python
from timm.data import auto_augment as timm_policies

from convmixer.errors import UserError
from convmixer.policies.spec import AutoAugment, RandAugment, parse_policy

HPARAMS = {"img_mean": (124, 116, 104)}


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "rand",
            "rand-m9-mstd0.5-inc1",
            "rand-m9-n3-mstd0.5",
            "rand-m7-mmax20-p0.7",
            "rand-n1-inc0",
            "rand-m8-mstd101",
        ),
        *("rand-mstd1-tweights", "rand-m6-t3a", "rand-m5-n4-t3aw-inc1", "rand-m15-mmax30-mstd.5".replace("d.", "d0.")),
    ],
)
def test_rand_augment_reads_as_timm(spec: str) -> None:
    ours, theirs = parse_policy(spec), timm_policies.rand_augment_transform(spec, dict(HPARAMS))
    assert isinstance(ours, RandAugment)
    assert list(ours.ops) == [op.name for op in theirs.ops]
    assert ours.layers == theirs.num_layers
    for op in theirs.ops:
        assert (ours.probability, ours.level, ours.level_std) == (op.prob, op.magnitude, op.magnitude_std)
        assert ours.level_max == (op.magnitude_max or 10)
    if theirs.choice_weights is None:
        assert ours.weights is None
    else:
        assert ours.weights is not None
        assert [w / sum(ours.weights) for w in ours.weights] == pytest.approx(list(theirs.choice_weights))


@pytest.mark.parametrize("spec", ["original", "originalr", "v0", "v0r", "3a", "original-mstd0.5", "v0r-mstd2"])
def test_auto_augment_reads_as_timm(spec: str) -> None:
    ours, theirs = parse_policy(spec), timm_policies.auto_augment_transform(spec, dict(HPARAMS))
    assert isinstance(ours, AutoAugment)
    steps = [[(step.op, step.probability, step.level) for step in branch] for branch in ours.branches]
    assert steps == [[(op.name, op.prob, op.magnitude) for op in branch] for branch in theirs.policy]
    assert {ours.level_std} == {op.magnitude_std for branch in theirs.policy for op in branch}


def test_level_std_above_100_is_uniform() -> None:
    for spec, level_std in (("rand-m9-mstd101", math.inf), ("rand-m9-mstd100", 100)):
        policy = parse_policy(spec)
        assert isinstance(policy, RandAugment)
        assert policy.level_std == level_std


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rnd-m9", "auto_augment: 'rnd-m9' names no policy; did you mean rand?"),
        (
            "",
            "auto_augment: '' names no policy; known are rand, original, originalr, v0, v0r, 3a, randaugment, "
            "trivialaugmentwide, augmix.",
        ),
        ("randaugmet-m9", "'randaugmet-m9' names no policy; did you mean randaugment?"),
        ("randaugment-m9-mstd0.5", "section 'mstd0.5': known are n, m, bins."),
        ("randaugment-m31", "'randaugment-m31': m is 31, it must be below the number of magnitudes, 31."),
        ("randaugment-m8-bins8", "m is 8, it must be below the number of magnitudes, 8."),
        ("randaugment-n0", "section 'n0': n takes an integer from 1 to 100."),
        ("trivialaugmentwide-m3", "section 'm3': known are bins."),
        ("trivialaugmentwide-bins1", "section 'bins1': bins takes an integer from 2 to 1000."),
        ("augmix-m11", "'augmix-m11': m is 11; augmix takes a severity from 1 to 10."),
        ("augmix-m0", "'augmix-m0': m is 0; augmix takes a severity from 1 to 10."),
        ("augmix-a0", "section 'a0': a takes a number above 0 and up to 1000."),
        ("augmix-w11", "section 'w11': w takes an integer from 1 to 10."),
        ("augmix-b1", "section 'b1': known are m, w, d, a, all."),
        ("rand-m9-msdt0.5", "auto_augment: 'rand-m9-msdt0.5': section 'msdt0.5': did you mean mstd?"),
        ("rand-m9-w0", "section 'w0': known are m, n, p, mstd, mmax, inc, tweights, t3a, t3aw."),
        ("rand-m9-twieghts", "section 'twieghts': did you mean tweights?"),
        ("rand-mx", "section 'mx': did you mean mmax?"),
        ("rand-m", "section 'm': m takes an integer from 0 to 1000."),
        ("rand-m9.5", "section 'm9.5': m takes an integer from 0 to 1000."),
        ("rand-m9-n0", "section 'n0': n takes an integer from 1 to 100."),
        ("rand-p1.5", "section 'p1.5': p takes a probability from 0 to 1."),
        ("rand-inc2", "section 'inc2': inc takes 0 or 1."),
        ("rand-m9-mmax0", "section 'mmax0': mmax takes an integer from 1 to 1000."),
        ("rand-m9-m8", "'m' stands twice."),
        ("rand-m9-", "section '': known are"),
        ("rand-n15-t3aw", "n is at most 14 with t3aw"),
        ("original-m9", "section 'm9': known are mstd."),
        ("rand-m9-mstd0.5\n", "mstd takes a number from 0."),
    ],
)
def test_a_wrong_spec_is_named(spec: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_policy(spec)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_options_are_checked_without_torch() -> None:
    code = "import sys, convmixer.policies.spec; sys.exit('torch' in sys.modules)"
    assert run_python("-c", code).returncode == 0
