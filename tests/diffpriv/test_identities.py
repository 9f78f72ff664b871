"""Photos that share an identity seed get one synthetic face; the method is the builtin model's, at its fast setting."""

import numpy as np
import torch

from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.transforms import FaceRequest, load_transform
from tests.pipelines.datasets import group


def test_faces_of_one_identity_seed_resemble_each_other_and_no_others() -> None:
    """Six people: three are given one identity, three another."""
    picture = group()
    (faces,) = load_detector("centerface").detect([picture])
    people = [(b"one" if number < 3 else b"two").ljust(32, b".") for number in range(6)]
    requests = [
        FaceRequest(picture, face, bytes([number]) * 32, person)
        for number, (face, person) in enumerate(zip(faces, people, strict=True))
    ]
    transform = load_transform(TransformConfig(recovery="none", preset="fast", max_attempts=1, similarity_limit=1.0))
    results = transform.protect(requests)
    crops = [
        warp_to_crop(apply_patches(picture, [result.patch]), face_to_crop_matrix(face.landmarks))
        for face, result in zip(faces, results, strict=True)
    ]
    pipeline = transform.pipeline  # type: ignore[attr-defined]
    with torch.no_grad():
        embedded = pipeline.recognizer.embed_canonical(to_tensor(crops, pipeline.device)).numpy()
    alike = embedded @ embedded.T
    same = np.equal.outer(np.arange(6) < 3, np.arange(6) < 3)
    within, across = alike[same & ~np.eye(6, dtype=bool)], alike[~same]
    assert within.mean() > across.max()
    assert len({request.seed for request in requests}) == 6
