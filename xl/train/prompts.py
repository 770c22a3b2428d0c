"""How a request is worded, in training as in serving. Nothing else words one."""

import re
from collections.abc import Iterable
from typing import Any

import jinja2

from xl.records import Row

BASE_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] | trim + '\n\n### Response:\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] | trim + eos_token }}"
    "{% else %}{{ message['content'] | trim + '\n\n' }}{% endif %}"
    "{% endfor %}"
)
"""Chat template for base models, which have none. It ends where the response begins, whether a generation prompt is asked for or not."""


TEMPLATE_SETTINGS = {"enable_thinking": False}
"""What chat templates are told, in training as in serving; those that do not know it do nothing about it. A model that thinks first answers
in English, and no digit or letter is its first token."""

STOPS = ("\n### ",)
"""Where the answer of a base model ends that was asked with `completion_prompt`: it would go on with a conversation of its own."""


def completion_prompt(messages: Iterable[tuple[str, str]]) -> str:
    """Turns (role, content) as text for a base model to go on from, in the wording of `BASE_TEMPLATE`."""
    turns = [{"role": role, "content": content} for role, content in messages]
    text: str = jinja2.Template(BASE_TEMPLATE).render(messages=turns, eos_token="\n\n")
    return text


def request(instruction: str, language: str, style: str = "") -> str:
    """What the user says: the English instruction, the request for the language, and a style where one is wanted.

    The request for the language follows the instruction as in X-Instruction (METHODS.md §1); the style separates the web's way to
    write from an assistant's.
    """
    return " ".join(filter(None, (instruction.strip(), f"Answer in {language}.", style)))


def request_of(row: Row, style: str = "") -> str:
    """What the user says in a row of a dataset: its `request` where there is one, which holds the instruction's input as well."""
    if not row.get("request"):
        return request(row["instruction"], row["language"], style)
    return f"{row['request']} {style}".rstrip()


def give_chat_template(tokenizer: Any) -> None:
    """Set our template on a tokenizer that has none, beginning with the BOS token if the tokenizer sets one itself."""
    if tokenizer.chat_template:
        return
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if adds_bos else "") + BASE_TEMPLATE


def without_thinking(template: str) -> str:
    """The chat template of a tuned model, which says what `TEMPLATE_SETTINGS` say also to those who do not say it."""
    by_default = "{% if enable_thinking is not defined %}{% set enable_thinking = false %}{% endif %}"
    return by_default + template if "enable_thinking" in template else template


def stop_ids(tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the end of text, then the end of a turn where the chat template has one."""
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "42"}]
    behind = tokenizer.apply_chat_template(turn, tokenize=False, **TEMPLATE_SETTINGS).rstrip().rpartition("42")[2]
    turn_end = tokenizer(behind, add_special_tokens=False).input_ids[-1:]
    special = {*tokenizer.all_special_ids, *(n for n, token in tokenizer.added_tokens_decoder.items() if token.special)}
    return list(dict.fromkeys([tokenizer.eos_token_id, *(n for n in turn_end if n in special)]))


def special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """What in a text would be read as a control token; None for a tokenizer without any."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


def defuse(text: str, special: re.Pattern[str] | None) -> str:
    """Web text in which no control token can be read: `<eos>` becomes `< eos>`."""
    return special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if special else text
