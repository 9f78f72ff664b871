"""Verification figures on similarities whose answer is known."""

import numpy as np
import pytest

from diffpriv.attacks.embedding_map import fit_embedding_map
from diffpriv.attacks.pairs import FacePairs, split_people
from diffpriv.metrics.distribution import frechet_distance
from diffpriv.metrics.downstream import learn
from diffpriv.metrics.geometry import pose, shift
from diffpriv.metrics.verification import (
    Trial,
    cosine_trial,
    equal_error_rate,
    mean,
    rank_one,
    share,
    threshold_at,
    true_accept_rate,
    unit,
)

PEOPLE = np.repeat(np.arange(40), 3)


def _embedded(noise: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return unit(unit(random.normal(size=(40, 64)))[PEOPLE] + noise * random.normal(size=(len(PEOPLE), 64)) / 8)


def _against_clean(probes: np.ndarray) -> Trial:
    return cosine_trial(probes, _embedded(0.3), PEOPLE)


@pytest.mark.parametrize("kind", ["own", "other"])
def test_photos_against_themselves_show_no_privacy(kind: str) -> None:
    rate = true_accept_rate(_against_clean(_embedded(0.3)), kind, 1e-3)
    assert rate.value == 1
    assert rate.low is not None
    assert rate.low > 0.9
    assert rank_one(_against_clean(_embedded(0.3)))[0].value == 1
    assert equal_error_rate(_against_clean(_embedded(0.3)), kind) == pytest.approx(0, abs=0.01)


def test_one_and_the_same_output_for_everybody_matches_nobody() -> None:
    trial = _against_clean(np.tile(_embedded(0.3)[:1] * 0 + 1, (len(PEOPLE), 1)))
    rate, chance = rank_one(trial)
    assert rate.value == pytest.approx(chance, abs=0.05)
    own = true_accept_rate(trial, "other", 1e-2)
    assert own.value is not None
    assert own.value <= 2e-2
    constant = Trial(np.ones_like(trial.scores), PEOPLE, PEOPLE, trial.probe_photo, trial.gallery_photo)
    assert true_accept_rate(constant, "other", 1e-2).value == 0
    assert rank_one(constant)[0].value == pytest.approx(chance, abs=1e-9)


def test_a_guess_accepts_genuine_pairs_as_often_as_strangers() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(size=(len(PEOPLE), len(PEOPLE)))
    photos = np.arange(len(PEOPLE))
    rate = true_accept_rate(Trial(scores, PEOPLE, PEOPLE, photos, photos), "other", 0.1)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low <= 0.1 <= rate.high


def test_a_threshold_keeps_its_false_accept_rate() -> None:
    strangers = np.random.default_rng(0).normal(size=10_000)
    for far in (1e-1, 1e-2, 1e-3):
        assert (strangers > threshold_at(strangers, far)).mean() == pytest.approx(far, rel=1e-6)
    assert (np.ones(100) > threshold_at(np.ones(100), 0.01)).sum() == 0


def test_no_hit_among_few_people_is_no_proof() -> None:
    rate = share(np.zeros(12), np.repeat(np.arange(6), 2))
    assert rate.value == 0
    assert rate.high == pytest.approx(1 - 0.05 ** (1 / 6))
    assert mean(np.zeros(12), np.repeat(np.arange(6), 2)).high == 0


def test_intervals_follow_people_not_photos() -> None:
    hits, people = np.repeat([1.0, 0.0], 50), np.repeat([0, 1], 50)
    by_person, by_photo = share(hits, people), share(hits, np.arange(100))
    assert by_person.high is not None
    assert by_photo.high is not None
    assert by_person.high > by_photo.high + 0.2


def test_a_trained_map_undoes_a_hidden_rotation_on_people_it_never_saw() -> None:
    clean = _embedded(0.3)
    turned = clean @ np.linalg.qr(np.random.default_rng(5).normal(size=(64, 64)))[0]
    # Crops stand for themselves here: each holds its row's number, and the embedding looks the row up.
    crops = np.arange(len(PEOPLE))
    data = split_people(FacePairs(crops, crops + 1000, PEOPLE), seed=0)
    rows = np.concatenate([clean, np.zeros((1000 - len(clean), 64)), turned])
    before = true_accept_rate(cosine_trial(turned, clean, PEOPLE), "other", 1e-2).value
    attack = fit_embedding_map("map", lambda chosen: rows[chosen], data.training, data.choosing)
    scores = attack.scores(data.tested.outputs, data.tested.originals)
    tested, photos = data.tested.persons, np.arange(len(data.tested.persons))
    after = true_accept_rate(Trial(scores, tested, tested, photos, photos), "other", 1e-2).value
    assert before is not None
    assert after is not None
    assert before < 0.1
    assert after > 0.5
    groups = [set(part.persons) for part in (data.training, data.choosing, data.tested)]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


def test_a_turned_head_changes_yaw_and_a_tilted_one_only_roll() -> None:
    front = np.array([[[46.0, 52], [82, 52], [64, 73], [49, 94], [79, 94]]])
    aside = front.copy()
    aside[:, 2, 0] += 9
    angle = np.deg2rad(20)
    tilted = (front - 64) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + 64
    assert pose(aside)[0, 0] == pytest.approx(0.25)
    assert pose(tilted)[0] == pytest.approx(pose(front)[0] + [0, 0, 20, 0])
    box = np.array([[40.0, 40, 88, 110]])
    moved = shift(front, front + 3.6, box, box + 24)
    assert moved.landmarks[0] == pytest.approx(0.1 * np.sqrt(2))
    assert moved.box[0] == pytest.approx(1 - (24 * 46) / (2 * 48 * 70 - 24 * 46))


def test_labels_can_be_learned_from_what_kept_them_and_not_from_a_constant() -> None:
    random = np.random.default_rng(0)
    labels = random.random(120) < 0.5
    clean = random.normal(size=(120, 8)) + 3 * labels[:, None]
    kept = learn(clean, clean, labels, np.arange(120) // 2)
    lost = learn(clean, np.ones_like(clean), labels, np.arange(120) // 2)
    assert kept is not None
    assert lost is not None
    assert kept.kept == 1
    assert lost.kept == 0
    assert learn(clean[:8], clean[:8], labels[:8], np.arange(8)) is None
    assert frechet_distance(clean[:60], clean[60:]) < frechet_distance(clean[:60], np.zeros_like(clean[60:]) + 9)
