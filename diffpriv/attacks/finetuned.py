"""A recogniser fine-tuned on (original, output) pairs: its last blocks learn to see through the transformation.

Loss: InfoNCE between the trained embedding of outputs and the frozen embedding of originals, all photos of one person being
positives of one another (Khosla et al. 2020, eq. 2). The frozen first blocks are run once per picture, mirrored ones included,
so a step costs a few milliseconds and minutes on one CPU thread are thousands of steps.
"""

import copy
import time

import numpy as np
import torch
from torch.nn import functional

from diffpriv.attacks.pairs import FacePairs, separation_of
from diffpriv.crops import to_tensor
from diffpriv.models.recognizer import PIXEL_SCALE, FaceRecognizer

TRAINED_BLOCKS = 4
TEMPERATURE = 0.1
BATCH = 32
CHECK_EVERY = 40  # steps between looks at the set-aside people
LEARNING_RATE = 3e-4


class FinetunedRecognizer:
    """Args:
    recognizer: a pretrained one, which the attacker also has; not changed.
    name: for the report.
    """

    def __init__(self, name: str, recognizer: FaceRecognizer) -> None:
        self.name = name
        self._frozen = recognizer
        self._blocks = copy.deepcopy(recognizer.blocks[-TRAINED_BLOCKS:]).requires_grad_(True)
        self._head = copy.deepcopy(recognizer.head).requires_grad_(True)

    def scores(self, outputs: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            probes = torch.cat([self._after(_early(self._frozen, part)) for part in _parts(outputs)])
            faces = torch.cat([_late(self._frozen, _early(self._frozen, part)) for part in _parts(gallery)])
        return (probes @ faces.T).numpy()

    def fit(self, training: FacePairs, choosing: FacePairs, *, seconds: float, seed: int) -> "FinetunedRecognizer":
        """Train for at most `seconds` of processor time, then keep the weights that did best on the set-aside people."""
        started = time.process_time()
        both = np.concatenate([training.outputs, training.outputs[:, :, ::-1]])
        seen, known = self._seen_early(FacePairs(training.originals, both, training.persons))
        persons = torch.from_numpy(np.asarray(training.persons))
        parameters = [*self._blocks.parameters(), *self._head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-2)
        generator = torch.Generator().manual_seed(seed)
        aside = self._seen_early(choosing)
        best, weights, step = self._separation(aside, choosing), self._state(), 0
        while time.process_time() - started < seconds:
            chosen = torch.randint(len(seen), (min(BATCH, len(seen)),), generator=generator)
            photo = chosen % len(known)
            logits = self._after(seen[chosen]) @ known.T / TEMPERATURE
            same = persons[photo][:, None] == persons[None]
            loss = -(functional.log_softmax(logits, 1) * same).sum(1) / same.sum(1)
            optimizer.zero_grad()
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            if step % CHECK_EVERY == 0:
                value = self._separation(aside, choosing)
                if value > best:
                    best, weights = value, self._state()
        self._blocks.load_state_dict(weights[0])
        self._head.load_state_dict(weights[1])
        return self

    def _seen_early(self, pairs: FacePairs) -> tuple[torch.Tensor, torch.Tensor]:
        """(maps of the outputs, embeddings of the originals): what training does not change."""
        with torch.no_grad():
            seen = torch.cat([_early(self._frozen, part) for part in _parts(pairs.outputs)])
            return seen, torch.cat([_late(self._frozen, _early(self._frozen, part)) for part in _parts(pairs.originals)])

    def _separation(self, early: tuple[torch.Tensor, torch.Tensor], pairs: FacePairs) -> float:
        with torch.no_grad():
            return separation_of((self._after(early[0]) @ early[1].T).numpy(), pairs.persons)

    def _after(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self._head(self._blocks(hidden).mean((2, 3))), dim=1)

    def _state(self) -> tuple[dict, dict]:
        return copy.deepcopy(self._blocks.state_dict()), copy.deepcopy(self._head.state_dict())


def _parts(crops: np.ndarray, size: int = 32) -> list[torch.Tensor]:
    return [to_tensor(crops[start : start + size]) for start in range(0, len(crops), size)]


def _early(recognizer: FaceRecognizer, crops: torch.Tensor) -> torch.Tensor:
    """The maps that the trained blocks take: the recogniser's forward pass up to them."""
    pixels = ((recognizer.from_canonical(crops) + 1) * 127.5 - recognizer.pixel_mean) / PIXEL_SCALE
    hidden = functional.max_pool2d(functional.relu(recognizer.stem(pixels)), 3, 2)
    return recognizer.blocks[:-TRAINED_BLOCKS](hidden)


def _late(recognizer: FaceRecognizer, hidden: torch.Tensor) -> torch.Tensor:
    return functional.normalize(recognizer.head(recognizer.blocks[-TRAINED_BLOCKS:](hidden).mean((2, 3))), dim=1)
