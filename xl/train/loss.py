"""The loss: cross-entropy at supervised positions only, with logits for a chunk of them at a time.

A vocabulary of 262,144 makes the logits of one block of 2,048 tokens two GiB in fp32, most of them for the prompt. So the hidden states at
supervised positions are picked out first, and the output layer sees them chunk by chunk; a chunk's logits are made again in the backward
pass, never kept.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from xl.errors import UserError


class SupervisedLoss(nn.Module):  # type: ignore[misc]
    """A causal language model that returns its loss: the *sum* over the targets, so that whoever sees the whole batch can divide."""

    def __init__(self, model: Any, logits_chunk: int) -> None:
        super().__init__()
        self.model = model
        self.logits_chunk = logits_chunk

    def forward(self, input_ids: Tensor, position_ids: Tensor, predictors: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy in nats, fp32. Shapes: [blocks, tokens] twice, [targets] twice; see `MicroBatch`."""
        hidden = self.hidden(input_ids, position_ids).flatten(0, 1)[predictors]
        chunks = list(zip(hidden.split(self.logits_chunk), targets.split(self.logits_chunk), strict=True))
        if len(chunks) == 1:
            return self.chunk_loss(*chunks[0])
        return torch.stack([checkpoint(self.chunk_loss, *chunk, use_reentrant=False) for chunk in chunks]).sum()

    def hidden(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Last hidden states, [blocks, tokens, width]. Without a mask, attention is causal and parts documents by their positions."""
        backbone = _causal_model(self.model).base_model
        output: Tensor = backbone(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        return output

    def chunk_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy of targets, [n], after hidden states, [n, width]."""
        return cross_entropy(self.logits(hidden), targets, reduction="sum")

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in fp32, capped where the model's configuration says so (Gemma 2, arXiv 2408.00118, section 2)."""
        model = _causal_model(self.model)
        logits: Tensor = model.get_output_embeddings()(hidden).float()
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits


def _causal_model(model: Any) -> Any:
    """The Hugging Face model itself, also inside an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()  # type: ignore[untyped-decorator]
def check_architecture(loss: SupervisedLoss, packing: bool, device: torch.device) -> None:
    """Make sure that this architecture means by our short cuts what we mean.

    A block of two documents must give the second the same hidden states whatever the first one says, and our logits must be the
    model's own. Models with recurrent layers fail the first, models that scale their logits in a way of their own the second.

    Raises:
        UserError: says which of the two does not hold.
    """
    model = _causal_model(loss.model)
    tokens = torch.arange(1, 13, device=device) % model.config.get_text_config().vocab_size
    positions = torch.arange(6, device=device).repeat(2)[None]
    changed = torch.cat([tokens[:6].flip(0), tokens[6:]])
    hidden, other = (loss.hidden(ids[None], positions)[0, 6:] for ids in (tokens, changed))
    if packing and not torch.allclose(hidden, other, rtol=1e-3, atol=1e-3):
        raise UserError(f"train.packing: documents packed together see each other in a {model.config.model_type}; set `packing: false`")
    hidden = loss.hidden(tokens[None], torch.arange(12, device=device)[None])[0]
    own = model(input_ids=tokens[None], use_cache=False).logits[0].float()
    if not torch.allclose(loss.logits(hidden), own, rtol=2e-2, atol=2e-2):
        raise UserError(f"train: a {model.config.model_type} changes its logits in a way of its own; it cannot be trained yet")
