"""A model as a folder or the hub has it: its tokenizer and its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xl.engines.models import local_path
from xl.errors import UserError, require
from xl.train.prompts import give_chat_template


def load_tokenizer(model: str, revision: str = "main") -> Any:
    """A model's tokenizer, with our chat template where it has none. Raises UserError when it cannot be loaded."""
    transformers = require("transformers", "train")
    with _told_in_one_line(model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(local_path(model), revision=revision)
    give_chat_template(tokenizer)
    return tokenizer


def load_weights(model: str, dtype: Any, revision: str = "main") -> Any:
    """A model in transformers, with the attention that vLLM computes.

    Where the configuration caps the logits of attention (Gemma 2, arXiv 2408.00118, section 2), only `eager` does so: the faster `sdpa`
    leaves the cap out.

    Args:
        model: a Hugging Face folder, which may be in an object store, or a hub id.
        dtype: of the weights in memory.
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: the model cannot be loaded, or has no such attention.
    """
    transformers = require("transformers", "train")
    with _told_in_one_line(model):
        path = local_path(model)
        config = transformers.AutoConfig.from_pretrained(path, revision=revision)
        is_capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
        attention = "eager" if is_capped else "sdpa"
        return transformers.AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=dtype, attn_implementation=attention)


@contextmanager
def _told_in_one_line(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a disk's or a network's, not the user's: another try may do
            raise
        raise UserError(f"the model {model!r} cannot be loaded: {str(error).splitlines()[0]}") from error
