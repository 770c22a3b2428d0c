"""What the report and the card say of the pairs of each method."""

from typing import NamedTuple


class About(NamedTuple):
    """How a method makes its pairs, what a pair is, what to beware of, and whose the texts are."""

    how: str
    pair: str
    limits: tuple[str, ...]
    rights: str


METHODS = {
    "x_instruction": About(
        "A text that a person wrote in the language is the response; a model only writes the English instruction that "
        "this text answers (X-Instruction, arXiv 2405.19744).",
        "an English instruction and a response",
        (
            "The responses are web pages as people wrote them. They can be wrong, biased or out of date, and can name persons.",
            "A model wrote the instructions. Some do not fit their page although they passed the filters.",
            "The responses have the style of web pages, not that of an assistant; topics are spread as they are on the pages.",
        ),
        "The texts remain under the rights of their authors; `url` says where each was found.",
    ),
    "xl_instruct": About(
        "An English passage becomes an English question and a refined answer; the answer is translated several times, and the "
        "sample with the best estimated quality is the response (XL-Instruct, arXiv 2503.22973).",
        "an English instruction and a response",
        (
            "Models wrote the questions, and made the responses of English web pages as the recipe says. Both can be wrong although they "
            "passed the filters, and so can the pages.",
            "Responses that were translated can read like translations, and their topics are those of English pages.",
            "Nobody read the translations: at most a model estimated how good they are.",
        ),
        "The pages remain under the rights of their authors; `url` says where each was found.",
    ),
    "cross_alpaca": About(
        "Instructions in English, their translations, and requests for a translation are mixed in set proportions "
        "(CrossAlpaca, arXiv 2308.14186).",
        "an instruction, in English or in another language, and a response",
        (
            "Instructions and responses are as the data sets have them, and models may have written those. They can be wrong or biased.",
            "Translations, by people or by models, were checked by such simple measures as their length and language alone.",
            "Requests for a translation have one of thirty wordings.",
        ),
        "The texts remain under the licences of the data sets that `source` names.",
    ),
}
OWN_METHOD = About("", "an instruction and a response", (), "The texts remain under the rights of their authors.")
"""What can be said of a method that is not one of these."""
