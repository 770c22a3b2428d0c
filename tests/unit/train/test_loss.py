"""The loss is the model's own, whatever lies beside a document and however many logits are made at once."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_model import tiny_dataset, tiny_model, tiny_tokenizer
from xl.errors import UserError
from xl.train.loss import SupervisedLoss, check_architecture
from xl.train.packing import assemble, num_supervised, plan
from xl.train.prompts import give_chat_template
from xl.train.tokens import Documents, open_documents, read_rows, write_documents
from xl.train.weights import load_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    folder = tmp_path_factory.mktemp("data")
    tokenizer = tiny_tokenizer()
    give_chat_template(tokenizer)
    write_documents(read_rows(tiny_dataset(folder / "pairs.jsonl", 12)), tokenizer, 96, {}, folder / "tokens")
    return open_documents(folder / "tokens")


@pytest.fixture(scope="module", params=["gemma3", "gemma2", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_model(tmp_path_factory.mktemp(request.param), request.param)
    return load_weights(str(folder), torch.float32)


def loss_and_gradient(
    model: Any, data: Documents, packing: bool, micro_batch: int, logits_chunk: int, prompt_loss: bool = False
) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = SupervisedLoss(model, logits_chunk)
    documents = np.arange(len(data))
    total, found = 0.0, 0
    for blocks in plan(documents, data.lengths, 96, micro_batch, packing):
        batch = assemble(blocks, data, prompt_loss, pad_id=0)
        value = loss(*(torch.from_numpy(array) for array in (batch.input_ids, batch.position_ids, batch.predictors, batch.targets)))
        value.backward()
        total += value.item()
        found += len(batch.targets)
    assert found == num_supervised(documents, data, prompt_loss)
    return total / found, model.get_input_embeddings().weight.grad / found


@pytest.mark.parametrize("prompt_loss", [False, True])
def test_packed_unpacked_and_chunked_give_the_models_own_loss(model: Any, data: Documents, prompt_loss: bool) -> None:
    expected = own_loss(model, data, prompt_loss)
    _, gradient = loss_and_gradient(model, data, False, 1, 1000, prompt_loss)
    for packing, micro_batch, chunk in ((False, 1, 1000), (False, 5, 1000), (True, 1, 1000), (True, 3, 1000), (True, 2, 7)):
        loss, other = loss_and_gradient(model, data, packing, micro_batch, chunk, prompt_loss)
        assert loss == pytest.approx(expected, rel=1e-5), (packing, micro_batch, chunk)
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


def own_loss(model: Any, data: Documents, prompt_loss: bool) -> float:
    """As transformers computes it without short cuts: one document at a time, all logits, labels of -100 where nothing is learned."""
    model = AutoModelForCausalLM.from_pretrained(model.name_or_path, dtype=torch.float32, attn_implementation="eager")
    total = count = 0.0
    for number in range(len(data)):
        ids = torch.from_numpy(data[number].ids.astype(np.int64))[None]
        labels = ids.clone()
        if not prompt_loss:
            labels[:, : data[number].num_prompt] = -100
        learned = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * learned
        count += learned
    return total / count


def test_an_architecture_is_checked_for_what_the_short_cuts_take_for_granted(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = SupervisedLoss(model, 100)
    check_architecture(loss, packing=True, device=torch.device("cpu"))
    hidden = loss.hidden
    monkeypatch.setattr(loss, "hidden", lambda ids, positions: hidden(ids, torch.arange(ids.shape[1])[None]))
    with pytest.raises(UserError, match="set `packing: false`"):
        check_architecture(loss, packing=True, device=torch.device("cpu"))
    check_architecture(loss, packing=False, device=torch.device("cpu"))
    monkeypatch.setattr(loss, "logits", lambda states: SupervisedLoss.logits(loss, states) * 1.5)
    with pytest.raises(UserError, match="changes its logits"):
        check_architecture(loss, packing=False, device=torch.device("cpu"))
