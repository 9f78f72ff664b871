"""Guidance by several recognisers and by several candidates: each member is left behind, and candidates part."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from diffpriv.config import TransformConfig
from diffpriv.crops import to_pixels
from diffpriv.detectors import load_detector
from diffpriv.energies.repulsion import CandidateRepulsion
from diffpriv.errors import MisuseError, ModelError
from diffpriv.keyed_noise import candidate_seed
from diffpriv.models.recognizer import FaceRecognizer
from diffpriv.pipeline import DiffPrivacyPipeline
from diffpriv.presets import PRESETS, Preset, load_preset
from diffpriv.recognizers.builtin_recognizer import BuiltinRecognizer
from diffpriv.recognizers.human_recognizer import HumanRecognizer
from diffpriv.stages import ProtectOutput
from diffpriv.transforms import FaceRequest, load_transform
from diffpriv.transforms.diffprivacy import DiffPrivacyTransform
from diffpriv.weights import builtin_folder, load_pipeline
from tests.diffpriv.face_pictures import group_photo

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = replace(load_preset("fast", "anonymize"), steps=4, micro_batch=2)
SEEDS = [bytes([number]) * 32 for number in range(4)]


@pytest.fixture(scope="module")
def pipeline() -> DiffPrivacyPipeline:
    return load_pipeline(builtin_folder(), "cpu")


@pytest.fixture(scope="module")
def photos(pipeline) -> torch.Tensor:
    """Six people who do not exist, two pictures of each: 0 and 6, 1 and 7, …"""
    random = torch.Generator().manual_seed(1)
    people = torch.randn(6, int(pipeline.msi.config["prior_rank"]), generator=random)
    features = pipeline.msi.features_of_nobody(people).repeat(2, 1, 1)
    return pipeline.generate(features, lambda _: torch.randn(12, *pipeline.latent_shape, generator=random)).clamp(-1, 1)


@pytest.fixture(scope="module")
def crops(photos) -> torch.Tensor:
    return photos[:4].contiguous()


@pytest.fixture(scope="module")
def second(pipeline, photos, tmp_path_factory) -> Path:
    """Another recogniser, trained here: the builtin one's layers under a head that learns to tell six people apart."""
    random = torch.Generator().manual_seed(2)
    network: FaceRecognizer = copy.deepcopy(pipeline.recognizer)
    network.head = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        seen = network.embed_canonical(photos)
    head = nn.Linear(seen.shape[1], 128, bias=False)
    head.weight.data = torch.randn(head.weight.shape, generator=random) / 16
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    one, same = torch.eye(12, dtype=torch.bool), torch.arange(12)[:, None] % 6 == torch.arange(12) % 6
    for _ in range(150):
        embedded = functional.normalize(head(seen), dim=1)
        scores = (8 * embedded @ embedded.T).masked_fill(one, float("-inf"))
        loss = -(scores.log_softmax(1)[same & ~one]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cosine = (embedded @ embedded.T).detach()
    assert float(cosine[same & ~one].mean()) > float(cosine[~same].mean()) + 0.3
    network.head = head
    spread = float(1 - cosine[~same].mean())
    highest = float(cosine[~same].max())
    network.register_to_config(spread=spread, thresholds={"0.001": 1 - (1 - highest) / spread})
    folder = tmp_path_factory.mktemp("second")
    network.requires_grad_(False).save_pretrained(folder)
    return folder


def protected(
    pipeline: DiffPrivacyPipeline,
    crops: torch.Tensor,
    seeds: Sequence[bytes] = SEEDS,
    preset: Preset = FAST,
    task: str = "anonymize",
) -> ProtectOutput:
    key_e = pipeline.create_key(crops, preset, noise_map=False).key_e
    return pipeline.protect(crops, key_e, seeds, task, preset)


def test_a_face_leaves_every_recogniser_behind_that_guides_it(pipeline, crops, second):
    member = BuiltinRecognizer(str(second))

    def similarity(made: torch.Tensor) -> float:
        with torch.no_grad():
            return float(member.similarity(member.embed_canonical(made), member.embed_canonical(crops)).mean())

    # Longer steps than a preset's, so that what they do stands out from what the seeds do.
    strong = replace(FAST, guidance_scale=0.1, guidance_every=1, margin=-1.0)
    without = similarity(protected(pipeline, crops, preset=strong).crops)
    pipeline.guides = {member.identity: member}
    together = similarity(protected(pipeline, crops, preset=strong).crops)
    pipeline.guides = {}
    assert together < without


def test_hide_keeps_the_face_known_to_the_recogniser_that_was_brought(pipeline, crops, second):
    member = BuiltinRecognizer(str(second))
    preset = replace(load_preset("fast", "hide"), steps=4, guidance_scale=0.1)

    def similarity() -> float:
        made = protected(pipeline, crops, preset=preset, task="hide").crops
        with torch.no_grad():
            return float(member.similarity(member.embed_canonical(made), member.embed_canonical(crops)).mean())

    without = similarity()
    pipeline.guides = {member.identity: member}
    chosen = similarity()
    pipeline.guides = {}
    assert chosen > without


def test_candidates_of_one_face_are_less_alike_together_than_apart(pipeline, crops):
    embed, alike = pipeline.recognizer.embed_canonical, pipeline.recognizer.similarity
    together = protected(pipeline, crops, preset=replace(FAST, candidates=2)).candidates
    apart = [protected(pipeline, crops, [candidate_seed(seed, number) for seed in SEEDS]).crops for number in range(2)]
    with torch.no_grad():
        repelled = alike(embed(together[:, 0]), embed(together[:, 1]))
        free = alike(embed(apart[0]), embed(apart[1]))
    assert together.shape == (4, 2, *crops.shape[1:])
    assert float(repelled.mean()) < float(free.mean())


def test_candidates_depend_on_their_own_face_and_seed_only(pipeline, crops):
    preset = replace(FAST, candidates=2)
    first = protected(pipeline, crops[:2], SEEDS[:2], preset).candidates
    other = protected(pipeline, crops[[0, 2]], [SEEDS[0], SEEDS[3]], preset).candidates
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[0, 0], first[0, 1])


def test_repulsion_counts_each_pair_of_one_face_once_and_spares_shared_identities(pipeline, photos):
    recognizer = pipeline.recognizer
    with torch.no_grad():
        embedded = recognizer.embed_canonical(photos[:6])
    alike = recognizer.similarity(embedded[:, None], embedded[None])
    energy = CandidateRepulsion(3, torch.arange(6) < 3, margin=-10.0)(recognizer, embedded)
    assert float(energy.sum()) == pytest.approx(30 + float(alike[0, 1] + alike[0, 2] + alike[1, 2]), rel=1e-4)
    assert not energy[3:].any()


def test_a_brought_recogniser_guides_judges_and_is_named(second, monkeypatch):
    monkeypatch.setitem(PRESETS, ("fast", "anonymize"), replace(FAST, candidates=2))
    picture = group_photo()
    (faces,) = load_detector("centerface").detect([picture])
    person = b"one".ljust(32, b".")  # the second face gets a synthetic identity, which the brought recogniser embeds as well
    requests = [FaceRequest(picture, face, SEEDS[0], shared) for face, shared in zip(faces[:2], (None, person), strict=True)]
    transform = load_transform(TransformConfig(preset="fast", recovery="none", recognizer=str(second), max_attempts=1))
    assert isinstance(transform, DiffPrivacyTransform)
    assert f"judge and guide {BuiltinRecognizer(str(second)).identity}" in transform.identity
    results = transform.protect(requests)
    alone = transform.protect(requests[1:])
    assert np.array_equal(alone[0].patch.pixels, results[1].patch.pixels)
    plain = load_transform(TransformConfig(preset="fast", recovery="none", max_attempts=1)).protect(requests)
    assert not np.array_equal(plain[0].patch.pixels, results[0].patch.pixels)


def test_a_recogniser_that_nobody_knows_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(MisuseError, match="'arcface:weights' is not a recogniser") as caught:
        TransformConfig(recognizer="arcface:weights")
    assert "human:FOLDER" in caught.value.advice
    with pytest.raises(MisuseError, match="names no weights"):
        TransformConfig(recognizer="human:")
    with pytest.raises(ModelError, match="no recogniser weights") as missing:
        load_transform(TransformConfig(recognizer=str(tmp_path)))
    assert "insightface:FOLDER" in missing.value.advice


@pytest.mark.human
def test_humans_network_carries_gradients_and_is_left_behind(pipeline, crops, request):
    human = HumanRecognizer(request.config.getoption("--human"))
    pixels = to_pixels(crops)
    original = human.embed_canonical(crops)
    assert float((original * torch.from_numpy(human.embed(pixels))).sum(1).min()) > 0.999
    without = protected(pipeline, crops).crops
    pipeline.guides = {human.identity: human}
    together = protected(pipeline, crops).crops
    pipeline.guides = {}
    with torch.no_grad():
        before, after = (human.similarity(human.embed_canonical(made), original).mean() for made in (without, together))
    assert float(after) < float(before)
