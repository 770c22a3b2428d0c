"""A tiny random model with a tokenizer, and a tiny dataset: what a training does to them takes seconds."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = (
    *("water", "bridge", "garden", "street", "winter", "morning", "mountain", "church", "school"),
    *("market", "farmer", "river", "island", "paper", "teacher", "window", "music", "travel"),
)
LANGUAGES = {"de": "German", "tr": "Turkish", "sw": "Swahili"}


def tiny_tokenizer() -> Any:
    """A byte-level BPE of 400 pieces with `<bos>`, `<eos>` and `<pad>` that sets `<bos>` itself, as Gemma's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS), "### Instruction:\n### Response:\nAnswer in German."], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def tiny_model(folder: Path, family: str = "gemma3") -> Path:
    """A random model with its tokenizer, saved in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(family), dtype=torch.float32)
    with torch.no_grad():  # away from the tiny numbers of an initialisation, so that losses move
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _config(family: str) -> Any:
    """`gemma3` alternates a sliding window of 8 tokens with full attention, `gemma2` caps both; `gpt_neox` alone ties no embeddings."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    layers = ["sliding_attention", "full_attention"]
    gemma = {**common, "head_dim": 8, "sliding_window": 8, "layer_types": layers, "final_logit_softcapping": 5.0}
    match family:
        case "gemma3":
            return transformers.Gemma3TextConfig(**gemma)
        case "gemma2":
            return transformers.Gemma2Config(**gemma, query_pre_attn_scalar=1, attn_logit_softcapping=0.1)
        case "llama":
            return transformers.LlamaConfig(**common)
        case "mixtral":
            return transformers.MixtralConfig(**common, num_local_experts=4)
        case "gpt_neox":
            return transformers.GPTNeoXConfig(**{**common, "tie_word_embeddings": False})
    raise ValueError(family)


def tiny_dataset(path: Path, num_rows: int = 40) -> Path:
    """Pairs of unequal length as JSON Lines."""
    draw = random.Random(0)
    lines = []
    for number in range(num_rows):
        lang = draw.choice(list(LANGUAGES))
        row = {
            "id": f"{number:032x}",
            "instruction": " ".join(draw.choices(WORDS, k=draw.randint(2, 6))) + "?",
            "response": " ".join(draw.choices(WORDS, k=draw.randint(2, 25))),
            "lang": lang,
            "language": LANGUAGES[lang],
            "source": "web" if number % 2 else "wiki",
        }
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), "utf-8")
    return path
