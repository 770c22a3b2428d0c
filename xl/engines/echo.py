"""Where a continuation begins among the tokens of an echoed prompt.

Servers differ in what they say about it. vLLM's `text_offset` adds up the lengths of the tokens' texts, a BOS token's `<bos>`
included, so with BOS every offset is that much too far; a character that takes several tokens is shown whole at its last one
and as empty texts before. Others count from the text's beginning, show single bytes as `bytes:\\xe0`, or give no offsets.
"""

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Echo:
    """The prompt's tokens as texts, and where they begin in it as the server says (empty: it says nothing)."""

    tokens: tuple[str, ...]
    offsets: tuple[int, ...] = ()


def continuation_start(echo: Echo, prompt: str, text: str) -> int | None:
    """Index of the first token that begins at or behind the end of `prompt`, in an echo of `prompt + text`.

    The server's offsets are believed if the text says the same at each of them; else the lengths of the tokens, counted back
    from the end. None if neither fits, as with tokenizers that rewrite the text.
    """
    full = prompt + text
    ends = list(accumulate(map(len, echo.tokens), initial=len(full) - sum(map(len, echo.tokens))))
    for starts in (list(echo.offsets), ends[:-1]):
        if _fits(starts, echo.tokens, full):
            return next((i for i, start in enumerate(starts) if start >= len(prompt)), len(starts))
    return None


def _fits(starts: list[int], tokens: tuple[str, ...], full: str) -> bool:
    """Whether each token's text stands where it is said to. The first one is exempt: it may be BOS, or an added space."""
    if len(starts) != len(tokens) or starts != sorted(starts):
        return False
    return all(
        full.startswith(token, max(start, 0)) for start, token in zip(starts[1:], tokens[1:], strict=True) if not _is_fragment(token)
    )


def _is_fragment(token: str) -> bool:
    """Part of a character."""
    return token.startswith("bytes:") or "\ufffd" in token
