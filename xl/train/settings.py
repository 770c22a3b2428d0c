"""How a model is tuned: the recipe's `train:` part.

What a step learns is set by the keys without a mark. Keys marked `Execution` (workers, ZeRO stage, packing, micro-batch, …) decide only
how the same sum is computed: a run may change them and go on.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from xl.settings import EXECUTION, Languages, Placed, Strict


class Lora(Strict):
    """A low-rank adapter (arXiv 2106.09685). CrossAlpaca's arm is rank 8, alpha 16, dropout 0.05 on [q_proj, v_proj]."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter; `all-linear` means all but the output layer."""


class Train(Placed):
    """Settings of a training."""

    tune: Literal["full", "lora"] = "full"
    lora: Lora = Lora()
    languages: Languages | None = None
    """Languages of the pairs to learn from; by default all that the dataset has."""
    shuffled_responses: bool = False
    """A control: every instruction is learned with another pair's response in the same language. What such a model learns, it learns
    from the request for the language and from the responses alone."""
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, gt=0)
    """Optimizer steps; by default as many as `epochs` asks for."""
    global_batch: int = Field(32, gt=0)
    """Documents (instruction and response) of one optimizer step, over all workers and packed or not."""
    max_length: int = Field(2048, gt=1)
    """Longest document and longest packed block, in tokens. Longer responses are cut."""
    learning_rate: float = Field(2e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its full value."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`bf16` keeps master weights and moments in fp32: pure bf16 loses small updates. `auto` is bf16, but fp32 with `zero: 0` and on a
    CPU that does not compute in bf16, where it would take many times as long."""
    prompt_loss: bool = False
    """Whether the prompt's tokens are learned too, not the response's alone."""
    styles: dict[str, str] = Field(default_factory=dict)
    """Per source of pages, or tag of a mixture's component, a sentence that the request ends with (METHODS.md §1), such as
    `web: Write like a web page.` Those that are not named get none. The same sentence, or another one, can be sent to the served model."""
    seed: int = 0

    zero: Annotated[Literal[0, 1, 2, 3], EXECUTION] = 1
    """DeepSpeed's ZeRO stage: what the workers share out. 1: optimizer states, 2: gradients too, 3: weights too.
    A run that has begun may change between 1 and 2 only."""
    offload: Annotated[bool, EXECUTION] = False
    """Keep optimizer states (and with `zero: 3` the weights) in CPU memory."""
    workers: Annotated[int, EXECUTION] = Field(1, gt=0)
    """Processes that share the work. By default the training has all of them or waits."""
    min_workers: Annotated[int | None, EXECUTION] = Field(None, gt=0)
    """Fewest workers that it goes on with, on Ray: where nodes are lost it has fewer, and more again when there is room."""
    resize_seconds: Annotated[float, EXECUTION] = Field(60, gt=0)
    """How often a training with `min_workers` looks for room for more. To take them in, it goes back to its last checkpoint."""
    gpus_per_worker: Annotated[Literal[0, 1], EXECUTION] = 0
    """0 trains on CPU."""
    cpus_per_worker: Annotated[int, EXECUTION] = Field(1, gt=0)
    micro_batch: Annotated[int, EXECUTION] = Field(1, gt=0)
    """Blocks that a worker computes at once."""
    packing: Annotated[bool, EXECUTION] = True
    """Put the documents of a step together into blocks of `max_length`. They do not see each other: the result is the same."""
    gradient_checkpointing: Annotated[bool, EXECUTION] = False
    """Recompute activations in the backward pass: less memory, about a third more work."""
    logits_chunk: Annotated[int, EXECUTION] = Field(1024, gt=0)
    """Supervised tokens whose logits are in memory at once."""
    save_every: Annotated[int, EXECUTION] = Field(100, gt=0)
    """Steps between checkpoints; there is one at the end in any case."""
    keep: Annotated[int, EXECUTION] = Field(2, gt=0)
    """Newest checkpoints that are kept."""
    max_failures: Annotated[int, EXECUTION] = Field(8, ge=-1)
    """Lost workers before the run gives up; -1: never."""
    log_to: Annotated[tuple[Literal["tensorboard", "wandb"], ...], EXECUTION] = ()
    """Where metrics go beside `metrics.jsonl`."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Train":
        if self.precision == "bf16" and self.zero == 0:
            raise ValueError("precision: bf16 needs zero: 1 or more: it is ZeRO that keeps the master weights in fp32")
        if self.tune == "full" and self.lora != Lora():
            raise ValueError("lora changes nothing without `tune: lora`")
        if self.offload and self.zero == 0:
            raise ValueError("offload: true needs zero: 1 or more")
        if self.accelerator and not self.gpus_per_worker:
            raise ValueError(f"accelerator: {self.accelerator} needs gpus_per_worker: 1")
        if self.min_workers is None and self.resize_seconds != Train.model_fields["resize_seconds"].default:
            raise ValueError("resize_seconds needs `min_workers`: without it a training has all of its workers or waits")
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers: {self.min_workers} is more than workers: {self.workers}")
        return self
