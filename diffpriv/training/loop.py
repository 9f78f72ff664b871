"""The skeleton that every training here shares: a budget of wall minutes, resumable state, and averaged weights.

    run = TrainingRun(OUT / "checkpoint.pt", {"model": model}, optimizer, minutes=20, decay=0.998, seed=0, write=write_model)
    for step in run.steps():
        optimizer.param_groups[0]["lr"] = schedule(step)
        run.descend(loss_of(batch(step.generator)))

A run that was cut goes on from its checkpoint, with the numbers it would have drawn. The learning rate is a function of
`progress`, so more minutes asked for in total is a longer schedule, not a second one.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from diffpriv.arithmetic import resolve_arithmetic
from diffpriv.training.checkpoint import ParameterAverage, load_checkpoint, save_checkpoint

LONGEST_STEP = 60.0  # seconds; beyond it the process was paused (SIGSTOP), which is not training time
GRADIENT_NORM = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """index: from 0 over all resumptions. progress: share of the budget spent, 0 to 1. generator: of this step alone."""

    index: int
    progress: float
    generator: torch.Generator

    def rate(self, warmup_steps: int, floor: float) -> float:
        """Share of the learning rate: a linear rise, then half a cosine down to `floor`."""
        warm = min(1.0, (self.index + 1) / warmup_steps)
        return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * self.progress)))


class TrainingRun:
    """Args:
    checkpoint: read when it exists, rewritten every `save_seconds` and at the end.
    modules: by name; kept and averaged. optimizer: over the parameters that `descend` trains.
    minutes: the whole budget, what earlier parts of the run spent included.
    decay: of the moving average. seed: of the steps' generators.
    write: called after each checkpoint, to write the averaged model as a folder.
    others: whatever else has a state that the checkpoint must keep, by name: modules that are not averaged, optimisers that the
        caller steps.
    """

    def __init__(
        self,
        checkpoint: Path,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        *,
        minutes: float,
        decay: float,
        seed: int,
        write: Callable[[], None] | None = None,
        save_seconds: float = 180,
        report_every: int = 100,
        others: Mapping[str, nn.Module | torch.optim.Optimizer] | None = None,
    ) -> None:
        self.averages = {name: ParameterAverage(module, decay) for name, module in modules.items()}
        self.step, self.spent = 0, 0.0
        self._checkpoint, self._modules, self._optimizer = checkpoint, dict(modules), optimizer
        self._budget, self._seed, self._write = minutes * 60, seed, write
        self._save_seconds, self._report_every = save_seconds, report_every
        self._others = dict(others or {})
        self._trained = [value for group in optimizer.param_groups for value in group["params"] if value.requires_grad]
        self._shown: dict[str, float] = {}
        self._resume()

    def _resume(self) -> None:
        state = load_checkpoint(self._checkpoint)
        if state is not None:
            for name, module in self._modules.items():
                module.load_state_dict(state["modules"][name])
                self.averages[name].values = state["averages"][name]
            self._optimizer.load_state_dict(state["optimizer"])
            for name, other in self._others.items():
                other.load_state_dict(state["others"][name])
            self.step, self.spent = state["step"], state["spent"]
        print(json.dumps({"parameters": sum(value.numel() for value in self._trained), "resumed_at": self.step}), flush=True)

    def steps(self) -> Iterator[Step]:
        """One item per step until the budget is spent; saves on the way and at the end."""
        last = last_saved = time.monotonic()
        while self.spent < self._budget:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.step)
            yield Step(self.step, self.spent / self._budget, generator)
            self.step += 1
            now = time.monotonic()
            self.spent, last = self.spent + min(now - last, LONGEST_STEP), now
            if self.step % self._report_every == 0:
                means = {name: round(value, 5) for name, value in self._shown.items()}
                line = {"step": self.step, "minutes": round(self.spent / 60, 2), **means}
                print(json.dumps(line), flush=True)
            if now - last_saved > self._save_seconds:
                last_saved = now
                self._save()
        self._save()

    def descend(self, loss: torch.Tensor, shown: Mapping[str, torch.Tensor | float] | None = None) -> None:
        """One optimiser step down the loss, its gradient clipped, and the averages after it.

        Args:
            shown: what the log reports, by name; None is the loss.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, GRADIENT_NORM)
        self._optimizer.step()
        for name, module in self._modules.items():
            self.averages[name].update(module, self.step)
        for name, one in (shown or {"loss": loss}).items():
            value = float(torch.as_tensor(one).detach())
            self._shown[name] = 0.98 * self._shown[name] + 0.02 * value if name in self._shown else value

    def _save(self) -> None:
        state = {
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "averages": {name: average.values for name, average in self.averages.items()},
            "optimizer": self._optimizer.state_dict(),
            "others": {name: other.state_dict() for name, other in self._others.items()},
            "step": self.step,
            "spent": self.spent,
        }
        save_checkpoint(self._checkpoint, state)
        if self._write is not None:
            self._write()


def autocast(device: str) -> torch.autocast:
    """Convolutions and products in bfloat16, where the device has instructions for it; elsewhere it would only be slower."""
    return torch.autocast(device, torch.bfloat16, enabled=resolve_arithmetic("auto", torch.device(device)) == torch.bfloat16)


def read_arguments(description: str | None, *places: str, minutes: float) -> argparse.Namespace:
    """The command line that trainings share: their places in order, and how long, from which seed, and where they run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for place in places:
        parser.add_argument(place, type=Path)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()
