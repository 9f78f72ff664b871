"""The downstream test: a model trained on protected faces, tested on clean ones of other people, beside one trained on clean.

Features are histograms of oriented gradients (Dalal & Triggs 2005), which no part of the method uses; the model is a ridge
classifier. Two tasks that need no labels from anybody:
    face     is this patch a face? Negatives are patches of the same photos without one: the classic sliding-window detector.
    smile    is the mouth wider than the median (over the eye distance), and
    turn     is the head turned to the picture's right, by the detector's landmarks on the original: a dataset's annotations.
Any label the dataset has can be learned the same way. Folds are by person: nobody is trained on and tested on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffpriv.metrics.verification import Rate, share

FOLDS = 5
LEAST = 12  # faces of the rarer class below which a task says nothing
SIZE = 64  # pixels a crop is reduced to


@dataclass(frozen=True)
class Learned:
    """Balanced accuracies on clean faces, of a model trained on protected ones and of one trained on clean ones.

    Attributes:
        agreement: share of faces of which the model trained on clean ones says the same before and after protection.
    """

    trained_on_protected: float
    trained_on_clean: float
    agreement: Rate
    faces: int

    @property
    def kept(self) -> float | None:
        """(protected - 0.5) / (clean - 0.5): 1 loses nothing, 0 learned nothing that helps. None where clean learns nothing."""
        gain = self.trained_on_clean - 0.5
        return None if gain < 0.05 else max(0.0, (self.trained_on_protected - 0.5) / gain)


def features(crops: np.ndarray) -> np.ndarray:
    """(n, 128, 128, 3) uint8 -> (n, 1764) float32."""
    import cv2
    from skimage.feature import hog

    small = [cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (SIZE, SIZE), interpolation=cv2.INTER_AREA) for crop in crops]
    return np.array([hog(one, 9, (8, 8), (2, 2), block_norm="L2-Hys") for one in small], np.float32)


def learn_faces(
    clean: np.ndarray, protected: np.ndarray, empty: np.ndarray, persons: np.ndarray, empty_persons: np.ndarray, seed: int = 0
) -> Learned | None:
    """The task "face". Args: features of clean faces, protected faces and patches without a face; whose photo each is from."""
    people = np.concatenate([persons, empty_persons])
    labels = np.concatenate([np.ones(len(clean), bool), np.zeros(len(empty), bool)])
    return learn(np.concatenate([clean, empty]), np.concatenate([protected, empty]), labels, people, seed)


def learn(clean: np.ndarray, protected: np.ndarray, labels: np.ndarray, persons: np.ndarray, seed: int = 0) -> Learned | None:
    """Cross-validated by person. Args: features (n, k) of both, boolean labels (n,). None where there is too little."""
    people, who = np.unique(persons, return_inverse=True)
    if min(labels.sum(), (~labels).sum()) < LEAST or len(people) < FOLDS:
        return None
    fold = np.random.default_rng(seed).permutation(len(people))[who] % FOLDS
    by_protected, by_clean, of_protected = (np.zeros(len(labels), bool) for _ in range(3))
    for number in range(FOLDS):
        test, train = fold == number, fold != number
        if labels[train].all() or not labels[train].any() or not test.any():
            return None
        usual = _fit(clean[train], labels[train])
        by_clean[test], of_protected[test] = usual(clean[test]), usual(protected[test])
        by_protected[test] = _fit(protected[train], labels[train])(clean[test])
    same = share(by_clean == of_protected, persons, seed=seed)
    return Learned(_balanced(by_protected, labels), _balanced(by_clean, labels), same, len(labels))


def _fit(training: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import RidgeClassifier

    model = RidgeClassifier(alpha=10.0, class_weight="balanced").fit(training, labels)
    return lambda rows: model.predict(rows).astype(bool)


def _balanced(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers[labels].mean() + (~answers[~labels]).mean()) / 2)
