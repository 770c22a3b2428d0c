"""The model on DeepSpeed: its weights, its adapter, and the ZeRO engine around them (arXiv 1910.02054)."""

import contextlib
import io
from typing import Any

import torch

from xl.errors import require
from xl.train.loss import SupervisedLoss
from xl.train.settings import Train

_BUCKET_ELEMENTS = 50_000_000
"""Gradients that are reduced in one message. DeepSpeed's default of 5e8 takes GiBs of memory for a buffer."""


def start_engine(model: str, settings: Train, load_universal: bool) -> Any:
    """A DeepSpeed engine around `SupervisedLoss` around the model.

    Micro-batches are counted by the caller, who sets the boundary before each backward pass: a step has as many as its documents
    fill. So the accumulation steps stay at 1, and DeepSpeed scales no loss.

    Args:
        model: a Hugging Face folder or hub id.
        settings: how it is tuned.
        load_universal: whether a checkpoint in the universal format is going to be loaded.
    """
    deepspeed = require("deepspeed", "train")
    deepspeed.utils.logger.setLevel("WARNING")
    # On CPU DeepSpeed would compile a library for shared memory (minutes, and a compiler is needed), in which a killed worker's peers hang.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = deepspeed_config(settings, load_universal)
    torch.manual_seed(settings.seed)  # an adapter begins with random weights
    loss = SupervisedLoss(load_model(model, settings, config), settings.logits_chunk)
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


def load_model(model: str, settings: Train, config: dict[str, Any]) -> Any:
    """The weights, ready to be tuned. With ZeRO 3 no worker ever holds them all."""
    transformers = require("transformers", "train")
    hf_deepspeed = require("transformers.integrations.deepspeed", "train")
    # from_pretrained shares weights out as it reads them while this object lives
    zero3 = hf_deepspeed.HfDeepSpeedConfig(config) if settings.zero == 3 else None
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    del zero3
    if settings.gradient_checkpointing:
        loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return _with_adapter(loaded, settings) if settings.tune == "lora" else loaded


def _with_adapter(model: Any, settings: Train) -> Any:
    peft = require("peft", "train")
    lora = settings.lora
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False)


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
