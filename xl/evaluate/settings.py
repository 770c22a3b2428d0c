"""How a model is evaluated: the recipe's `evaluate:` part."""

from typing import Literal

from pydantic import Field, model_validator

from xl.evaluate.judge import Judging
from xl.evaluate.prompts import PromptSet
from xl.settings import Languages, Strict

Arm = Literal["base", "few_shot", "tuned"]

LABELS: dict[Arm, str] = {"base": "base", "few_shot": "base with examples", "tuned": "tuned"}
"""What a person reads for an arm."""


class Evaluate(Strict):
    """Which prompts are answered by which arms, and what is measured of the answers."""

    prompts: PromptSet
    languages: Languages | None = None
    """Languages that answers are asked for in; by default the recipe's."""
    arms: tuple[Arm, ...] = ("base", "tuned")
    """`base`: the model before the training; `few_shot`: the same with examples from the run's dataset in its prompt; `tuned`: after it."""
    num_examples: int = Field(3, ge=1)
    """Examples in the prompt of the arm `few_shot`, all in the wanted language."""
    max_example_chars: int = Field(300, ge=20)
    """Longest response among these examples; longer ones are cut at the end of a sentence."""
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    style: str = ""
    """A sentence that every request ends with, such as one of `train.styles`."""
    identifiers: tuple[Literal["fasttext", "py3langid"], ...] = ("fasttext", "py3langid")
    """What names an answer's language. It is lost only when all of them deny it the wanted one, or one and the script do."""
    num_others: int = Field(4, ge=0)
    """Other prompts that an answer's own prompt is held against by likelihood, under the base model; 0 leaves it out."""
    fit_tokens: int = Field(40, ge=8)
    """The answer's tokens that are scored for that, from its beginning."""
    num_fit_prompts: int | None = Field(None, gt=0)
    """Prompts of each language whose answers are scored so, the same in all languages; by default all. Scoring is the dear part."""
    judge: Judging | None = None
    """How answers are judged pairwise, and by `models.judge`; by default not at all."""
    reference: Arm | Literal["reference"] = "base"
    """What answers are compared with: an arm, or the reference answers that the prompts come with."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Evaluate":
        if self.judge and self.reference != "reference" and self.reference not in self.arms:
            raise ValueError(f"reference: {self.reference} is not among the arms {', '.join(self.arms)}")
        if not self.identifiers:
            raise ValueError("identifiers: at least one is wanted")
        return self
