"""The exported pack is what insightface expects, and embeds as the builtin recogniser does."""

import numpy as np
import pytest
import torch

from diffpriv.detectors import load_detector
from diffpriv.faces.alignment import face_to_crop_matrix, warp_to_crop
from diffpriv.recognizers import load_recognizer
from diffpriv.training.export_pack import MODEL_FILE, ArcFaceInput, export_pack
from tests.diffpriv.face_pictures import group_photo


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return export_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def people():
    """(picture RGB, its six faces)."""
    picture = group_photo()
    return picture, load_detector("centerface").detect([picture])[0]


def test_insightface_runs_the_pack_and_gets_what_torch_computes(pack, people):
    from insightface.model_zoo import get_model
    from insightface.utils.face_align import norm_crop

    picture, faces = people
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    aligned = [norm_crop(bgr, face.landmarks) for face in faces]
    model = get_model(str(pack / MODEL_FILE), providers=["CPUExecutionProvider"])
    assert model.taskname == "recognition"
    assert (model.input_mean, model.input_std) == (127.5, 127.5)
    theirs = model.get_feat(aligned)  # all faces in one call
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack(aligned)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        ours = ArcFaceInput(load_recognizer("builtin").network)(pixels).numpy()
    assert theirs.shape == ours.shape == (6, 128)
    assert (theirs * ours).sum(1).min() > 0.9999
    assert model.compute_sim(theirs[0], theirs[0]) == pytest.approx(1, abs=1e-5)


def test_our_own_route_embeds_with_the_pack_as_with_the_builtin_recogniser(pack, people):
    picture, faces = people
    crops = np.stack([warp_to_crop(picture, face_to_crop_matrix(face.landmarks)) for face in faces])
    builtin, packed = load_recognizer("builtin"), load_recognizer(f"insightface:{pack}")
    first, second = builtin.embed(crops), packed.embed(crops)
    threshold = packed.threshold(1e-3)
    assert threshold == pytest.approx(builtin.threshold(1e-3), abs=0.02)
    across = first @ second.T
    assert np.diag(across).min() > threshold  # the missing edge of the chin changes an embedding less than a person does
    assert (across.argmax(1) == np.arange(6)).all()
