"""The model on DeepSpeed: its weights, its adapter, and the ZeRO engine around them (arXiv 1910.02054)."""

import contextlib
import io
from typing import Any

import torch

from xl.errors import UserError, require
from xl.train.job import Job
from xl.train.loss import SupervisedLoss
from xl.train.settings import Train
from xl.train.weights import load_weights

_BUCKET_ELEMENTS = 50_000_000
"""Gradients that are reduced in one message. DeepSpeed's default of 5e8 takes GiBs of memory for a buffer."""


def start_engine(job: Job, load_universal: bool) -> Any:
    """A DeepSpeed engine around `SupervisedLoss` around the model.

    Micro-batches are counted by the caller, who sets the boundary before each backward pass: a step has as many as its documents
    fill. So the accumulation steps stay at 1, and DeepSpeed scales no loss.

    Args:
        job: the model, and how it is tuned.
        load_universal: whether a checkpoint in the universal format is going to be loaded.

    Raises:
        UserError: the model cannot be loaded, or has no such layers as the adapter is for.
    """
    deepspeed = require("deepspeed", "train")
    deepspeed.utils.logger.setLevel("WARNING")
    # On CPU DeepSpeed would compile a library for shared memory (minutes, and a compiler is needed), in which a killed worker's peers hang.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = deepspeed_config(job.settings, load_universal)
    torch.manual_seed(job.settings.seed)  # an adapter begins with random weights
    loss = SupervisedLoss(load_model(job, config), job.settings.logits_chunk)
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints its memory
        engine, *_ = deepspeed.initialize(model=loss, model_parameters=trained, config=config)
    return engine


def deepspeed_config(settings: Train, load_universal: bool) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    to_cpu = {"device": "cpu", "pin_memory": settings.gpus_per_worker > 0} if settings.offload else {"device": "none"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            # torch's own: DeepSpeed's wants a compiler on the machine
            "params": {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True, "fused": True},
        },
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": settings.zero,
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
            "offload_optimizer": to_cpu,
            **({"offload_param": to_cpu} if settings.zero == 3 else {}),
        },
        "bf16": {"enabled": settings.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "checkpoint": {"load_universal": load_universal},
    }


def load_model(job: Job, config: dict[str, Any]) -> Any:
    """The weights, ready to be tuned. With ZeRO 3 no worker ever holds them all. Raises UserError as `start_engine` does."""
    settings = job.settings
    # from_pretrained shares weights out as it reads them while this object lives
    zero3 = require("transformers.integrations.deepspeed", "train").HfDeepSpeedConfig(config) if settings.zero == 3 else None
    loaded = load_weights(job.model, torch.bfloat16 if settings.precision == "bf16" else torch.float32, job.revision)
    del zero3
    if settings.gradient_checkpointing:
        loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return _with_adapter(loaded, job) if settings.tune == "lora" else loaded


def _with_adapter(model: Any, job: Job) -> Any:
    peft = require("peft", "train")
    lora = job.settings.lora
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    if isinstance(targets, list):
        _check_targets(model, targets)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False, revision=job.revision)


def _check_targets(model: Any, targets: list[str]) -> None:
    """Refuse names of layers that the model has not got: PEFT would pass over them. Raises UserError."""
    linear = (torch.nn.Linear, require("transformers.pytorch_utils", "train").Conv1D)
    layers = [name for name, module in model.named_modules() if isinstance(module, linear)]
    unknown = [target for target in targets if not any(f".{layer}".endswith(f".{target}") for layer in layers)]
    if unknown:
        there = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
        raise UserError(f"train.lora.target_modules: no linear layer is called {', '.join(unknown)}; there are {there}")


def gradient_norm(engine: Any) -> float:
    """Norm of the step's gradients before they are scaled down; to be asked between the last backward pass and the next step."""
    if engine.zero_optimization():
        return float(engine.get_global_grad_norm())
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def gathered_weights(engine: Any, only_trained: bool) -> dict[str, torch.Tensor]:
    """The model's weights by name, on CPU in the main worker and empty in the others. All workers must call it.

    Gathered one by one: with ZeRO 3 the whole never lies on a GPU.
    """
    deepspeed = require("deepspeed", "train")
    is_main = torch.distributed.get_rank() == 0
    weights = {}
    for name, parameter in engine.module.model.named_parameters():
        if only_trained and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_partition_weights()):
            if is_main:
                weights[name] = parameter.detach().cpu().clone()
    return weights
