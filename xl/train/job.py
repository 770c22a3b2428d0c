"""What every worker of a training is told."""

from dataclasses import dataclass
from pathlib import Path

from xl.lease import Fence, fence_for
from xl.train.metrics import METRICS
from xl.train.settings import Train


def has_model(training: Path) -> bool:
    """Whether a training's folder holds its model, whole: the card is the last of its files."""
    return (training / "model" / "README.md").exists()


@dataclass(frozen=True)
class Job:
    """A training: its model, its folder and its settings."""

    model: str
    """Hugging Face folder or hub id of the weights to begin with."""
    name: str
    """How the user calls that model."""
    out: Path
    settings: Train
    licence: str | None = None
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    fence: Fence | None = None
    """Of the run that the training belongs to."""

    def check(self) -> None:
        """Raise Superseded where another driver has taken the run over, or other workers the training: what they read is not to change
        under them."""
        for fence in (self.fence, fence_for(self.checkpoints)):
            if fence is not None:
                fence.check()

    @property
    def tokens(self) -> Path:
        return self.out / "tokens"

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.out / METRICS

    @property
    def model_folder(self) -> Path:
        return self.out / "model"

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train."""
        return has_model(self.out)

    @property
    def adapter_folder(self) -> Path:
        return self.out / "adapter"
