"""What `precision: auto` means where a training runs."""

from typing import Any

from xl.engines.models import cpu_computes_bf16
from xl.train.settings import Train


def with_precision(settings: Train, begun: Any = None) -> Train:
    """The settings with bf16 or fp32 in place of `auto`.

    Args:
        settings: the training's.
        begun: what `train.json` says of a training that has begun, perhaps on another machine: it keeps its precision.
    """
    if settings.precision != "auto":
        return settings
    computes_bf16 = settings.zero > 0 and (settings.gpus_per_worker > 0 or cpu_computes_bf16())
    precision = begun["train"]["precision"] if begun else "bf16" if computes_bf16 else "fp32"
    return settings.model_copy(update={"precision": precision})
