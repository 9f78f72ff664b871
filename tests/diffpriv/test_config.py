"""Settings of a transformation: refused early, named by a digest."""

import pytest

from diffpriv.config import TransformConfig
from diffpriv.errors import MisuseError


def test_the_digest_changes_with_every_setting_and_only_then():
    base = TransformConfig()
    others = [
        TransformConfig(transform="blur", recovery="none"),
        TransformConfig(task="hide"),
        TransformConfig(recovery="exact"),
        TransformConfig(model="elsewhere"),
        TransformConfig(recognizer="elsewhere"),
        TransformConfig(preset="fast"),
        TransformConfig(similarity_limit=0.0),
        TransformConfig(max_attempts=4),
        TransformConfig(cover="square"),
        TransformConfig(keep=0),
    ]
    assert len({config.digest() for config in [base, *others]}) == 1 + len(others)
    assert TransformConfig.from_mapping(base.to_mapping()).digest() == base.digest()


def test_equal_limits_written_differently_have_one_digest():
    digests = {TransformConfig(similarity_limit=limit).digest() for limit in (0, 0.0, -0.0)}
    assert len(digests) == 1


def test_an_unknown_setting_is_refused_with_the_nearest_one():
    with pytest.raises(MisuseError, match="similarity_limit"):
        TransformConfig.from_mapping({"similarity_limt": 0.2})


@pytest.mark.parametrize(
    "values",
    [
        {"transform": "pixelate"},
        {"task": "both"},
        {"recovery": "some"},
        {"preset": "best"},
        {"model": ""},
        {"similarity_limit": 1.5},
        {"similarity_limit": float("nan")},
        {"similarity_limit": True},
        {"max_attempts": 0},
        {"max_attempts": 2.0},
        {"cover": "hat"},
        {"keep": -1},
        {"keep": 9},
        {"keep": True},
        {"transform": "blur", "recovery": "keys"},
        {"transform": "fill", "recovery": "image"},
        {"transform": "mosaic", "recovery": "none", "task": "hide"},
    ],
)
def test_settings_that_cannot_be_kept_are_misuse(values):
    with pytest.raises(MisuseError):
        TransformConfig.from_mapping(values)
