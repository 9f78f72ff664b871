"""Photos that share an identity seed get one synthetic face; the method is the builtin model's, at its fast setting."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from diffpriv.config import TransformConfig
from diffpriv.crops import to_tensor
from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.faces.compositing import apply_patches
from diffpriv.transforms import FaceRequest, load_transform
from tests.pipelines.datasets import group

PEOPLE = 6


def test_faces_of_one_identity_seed_resemble_each_other_and_no_others() -> None:
    """Six people with three photos each: the six faces of one picture, three times; who is who has nothing to do with looks."""
    picture = group()
    (faces,) = load_detector("centerface").detect([picture])
    photos = [(faces[number % len(faces)], number // 3) for number in range(3 * PEOPLE)]
    requests = [
        FaceRequest(picture, face, bytes([number]) * 32, bytes([100 + person]) * 32)
        for number, (face, person) in enumerate(photos)
    ]
    transform = load_transform(TransformConfig(recovery="none", preset="fast", max_attempts=1, similarity_limit=1.0))
    results = transform.protect(requests)
    crops = [
        warp_to_crop(apply_patches(picture, [result.patch]), face_to_crop_matrix(face.landmarks))
        for (face, _), result in zip(photos, results, strict=True)
    ]
    pipeline = transform.pipeline  # type: ignore[attr-defined]
    with torch.no_grad():
        embedded = pipeline.recognizer.embed_canonical(to_tensor(crops, pipeline.device)).numpy()
    who = np.array([person for _, person in photos])
    pairs = np.triu_indices(len(who), 1)
    same, alike = (who[:, None] == who)[pairs], (embedded @ embedded.T)[pairs]
    # How often two photos of one person are more alike than two of different people; chance is 0.5.
    assert roc_auc_score(same, alike) > 0.8
    assert len({request.seed for request in requests}) == len(requests)
