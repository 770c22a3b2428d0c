"""Sentence embeddings by any sentence-transformers model whose vectors are pooled tokens, with transformers alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xl.engines.models import ResolvedModel, local_path
from xl.errors import UserError, require

BATCH_TEXTS = 64
MAX_TOKENS = 256
"""Longer texts are cut; an instruction has about 30 tokens."""


def embed(model: ResolvedModel, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed texts, on a GPU where there is one.

    The same texts in the same order give the same vectors on the same kind of machine; another batch changes the last digits.

    Returns:
        Unit vectors, one row a text: (texts, width of the model).

    Raises:
        UserError: the model cannot be loaded, or does more than pool the tokens' mean or take the first token.
    """
    torch = require("torch", "cpu")
    transformers = require("transformers", "cpu")
    model = replace(model, path=local_path(model.path))
    try:
        takes_first_token = _takes_first_token(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model.path)
        encoder = transformers.AutoModel.from_pretrained(model.path, dtype=torch.float32).eval()
    except OSError as error:
        raise UserError(f"the embedding model {model.name!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    vectors = np.empty((len(texts), encoder.config.hidden_size), np.float32)
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(texts), BATCH_TEXTS):
        places = by_length[start : start + BATCH_TEXTS]
        batch = [texts[place] for place in places]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt").to(encoder.device)
        with torch.inference_mode():
            hidden = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if takes_first_token else (hidden * mask).sum(1) / mask.sum(1)
        vectors[places] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
    return vectors


def _takes_first_token(model: ResolvedModel) -> bool:
    """Whether a text's vector is its first token's and not the mean of all; without sentence-transformers' files it is the mean."""
    modules = _read_json(model, "modules.json")
    if modules is None:
        return False
    paths = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    pooling = _read_json(model, f"{paths['Pooling']}/config.json") if "Pooling" in paths else None
    modes = [key for key, value in (pooling or {}).items() if key.startswith("pooling_mode") and value]
    if set(paths) - {"Transformer", "Pooling", "Normalize"} or modes not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        steps = ", ".join([*paths, *modes])
        raise UserError(f"the embedding model {model.name!r} works by {steps}; name one that pools its tokens' mean or the first token")
    return modes == ["pooling_mode_cls_token"]


def _read_json(model: ResolvedModel, name: str) -> Any:
    """What a file of the model holds; None where it has no such file. Raises OSError when the hub cannot be asked."""
    hub = require("transformers.utils.hub", "cpu")
    path = hub.cached_file(model.path, name, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text("utf-8")) if path else None
