"""The endpoint engine against a server that fails as servers do."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tests.fault_server import FaultServer, logprob_of
from xl.ask import Completion, Message, Request, RequestFailed, Sampling
from xl.engines import openai
from xl.engines.openai import Endpoint, OpenAIEngine
from xl.engines.openai_replies import Refused, refuses
from xl.errors import UserError


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "FIRST_BACKOFF_SECONDS", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def chat(text: str, **sampling: Any) -> Request:
    return Request(Sampling(**sampling), seed=1, messages=(Message("user", text),))


T = TypeVar("T")


def against(server: FaultServer, task: Callable[[OpenAIEngine], Awaitable[T]], **settings: Any) -> T:
    """The outcome of a task with an engine for the server."""

    async def run() -> T:
        async with server:
            engine = OpenAIEngine(Endpoint(**{"url": server.url, "model": server.model, **settings}))
            try:
                return await task(engine)
            finally:
                await engine.close()

    return asyncio.run(run())


async def outcome(engine: OpenAIEngine, request: Request) -> Completion | RequestFailed:
    try:
        return await engine.complete(request)
    except RequestFailed as failed:
        return failed


async def many(engine: OpenAIEngine, count: int) -> list[Completion | RequestFailed]:
    return await asyncio.gather(*(outcome(engine, chat(f"question {n}")) for n in range(count)))


def test_a_chat_model_is_asked_with_messages_and_counts_its_tokens() -> None:
    server = FaultServer()
    completion = against(server, lambda engine: engine.complete(chat("Why?", temperature=0.5, repetition_penalty=1.1)))
    assert completion.text and completion.output_tokens
    sent = server.asked[-1]
    assert (sent["messages"][0]["content"], sent["seed"], sent["repetition_penalty"]) == ("Why?", 1, 1.1)


@pytest.mark.parametrize("is_chat", [True, False])
def test_choices_restrict_the_answer_of_a_vllm_server_and_the_first_token_has_logprobs(is_chat: bool) -> None:
    sampling = Sampling(choices=("A", "B", "C"), num_logprobs=3)
    request = chat("Rate!", choices=("A", "B", "C"), num_logprobs=3) if is_chat else Request(sampling, 1, prompt="Rate!")
    completion = against(FaultServer(), lambda engine: engine.complete(request), chat=is_chat)
    assert completion.text in ("A", "B", "C")
    assert set(completion.first_logprobs) == {"A", "B", "C"}


def test_a_refused_extra_parameter_is_left_out_from_then_on_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    server = FaultServer(refuses=("repetition_penalty", "structured_outputs"))

    async def task(engine: OpenAIEngine) -> list[Completion]:
        return [await engine.complete(chat(f"{n}", choices=("A", "B"), repetition_penalty=1.1)) for n in range(3)]

    assert all(completion.text for completion in against(server, task))
    assert len(server.asked) == 5, "one request for each refusal, then none that is refused"
    assert sum("repetition_penalty` any more" in record.message for record in caplog.records) == 1


def test_a_vllm_server_with_mistrals_own_tokenizer_is_asked_without_settings_for_a_template() -> None:
    told = "chat_template is not supported for Mistral tokenizers."
    assert refuses(Refused(400, told), "chat_template_kwargs") and not refuses(Refused(400, told), "max_tokens")


def test_retry_after_is_honoured() -> None:
    server = FaultServer(fault_ratio=1, faults=("rate_limit",), retry_after="0.7")
    failed = against(server, lambda engine: outcome(engine, chat("?")), max_attempts=3)
    gaps = [after - before for before, after in zip(server.arrivals, server.arrivals[1:], strict=False)]
    assert isinstance(failed, RequestFailed) and "429" in str(failed)
    assert len(gaps) == 2 and all(0.7 <= gap < 1.5 for gap in gaps)


def test_a_retry_after_beyond_the_clients_own_cap_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    server = FaultServer(fault_ratio=1, faults=("rate_limit",), retry_after="900")
    monkeypatch.setattr("xl.engines.openai.asyncio.sleep", note)
    against(server, lambda engine: outcome(engine, chat("?")), max_attempts=2)
    assert any(wait >= 900 for wait in waits)


def test_with_a_third_of_faults_every_request_ends_and_nearly_all_complete() -> None:
    server = FaultServer(fault_ratio=0.3, seed=7)
    results = against(server, lambda engine: many(engine, 200), timeout_seconds=0.5)
    assert len(server.asked) > 240, "the server did fail"
    assert sum(isinstance(result, Completion) for result in results) >= 198


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "silence", "cut_off", "nonsense"])
def test_attempts_end_at_the_limit_whatever_fails(fault: str) -> None:
    server = FaultServer(fault_ratio=1, faults=(fault,), retry_after="0.02")
    results = against(server, lambda engine: many(engine, 3), max_attempts=4, timeout_seconds=0.2)
    assert all(isinstance(result, RequestFailed) for result in results)
    assert len(server.asked) == 3 * 4


def test_no_more_requests_are_under_way_than_allowed() -> None:
    server = FaultServer(delay_seconds=0.02)
    against(server, lambda engine: many(engine, 60), concurrency=5)
    assert server.max_concurrency == 5


def test_requests_per_minute_are_kept_from_the_first_second_on() -> None:
    server = FaultServer()
    against(server, lambda engine: many(engine, 7), requests_per_minute=240)  # four at once, then one every quarter of a second
    assert server.arrivals[-1] - server.arrivals[0] >= 0.7


def test_a_wrong_key_is_a_user_mistake_and_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("RATER_KEY", "sk-very-secret")
    with pytest.raises(UserError, match="RATER_KEY") as error:
        against(FaultServer(api_key="sk-right"), lambda engine: engine.check(), api_key_env="RATER_KEY")
    assert "secret" not in str(error.value) + caplog.text


def test_the_right_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATER_KEY", "sk-right\n")
    against(FaultServer(api_key="sk-right"), lambda engine: engine.complete(chat("?")), api_key_env="RATER_KEY")


def test_an_unreachable_server_is_a_user_mistake_that_names_the_url() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://user:hidden@127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"127\.0\.0\.1") as error:
            asyncio.run(OpenAIEngine(Endpoint(url=url, model="m")).check())
    assert "hidden" not in str(error.value)


def test_an_unknown_model_is_a_user_mistake_that_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'other'.*lists scripted"):
        against(FaultServer(), lambda engine: engine.complete(chat("?")), model="other")


@pytest.mark.parametrize("offsets", ["vllm", "exact", "none"])
@pytest.mark.parametrize("bos", ["<bos>", ""])
def test_scores_are_of_the_continuations_own_tokens_however_the_server_counts(offsets: Any, bos: str) -> None:
    server = FaultServer(offsets=offsets, bos=bos)
    score = against(server, lambda engine: engine.score("Über 河 und See:\n", "Das 河 fließt. " + "Und weiter " * 50, max_tokens=7))
    expected = ["Das", " ", "", "", "河", " fließt", "."]
    assert score.logprobs == pytest.approx([logprob_of(token) for token in expected])
    assert len(server.asked) == 1, "one request is enough"


def test_tokens_that_do_not_add_up_to_the_text_are_told_apart_by_counting_the_prompts_own() -> None:
    score = against(FaultServer(rewrites=True), lambda engine: engine.score("one two", " three four", max_tokens=2))
    assert score.logprobs == pytest.approx([logprob_of(" THREE"), logprob_of(" FOUR")])


def test_an_endpoint_that_cannot_echo_is_a_user_mistake_that_names_what_works_without() -> None:
    with pytest.raises(UserError, match=r"rater: likelihood.*rater: prompted.*for benchmarks `output_type: generate_until`"):
        against(FaultServer(echoes=False), lambda engine: engine.score("one two", " three", max_tokens=2))
    with pytest.raises(UserError, match=r"rater: likelihood.*rater: prompted"):
        against(FaultServer(refuses=("echo",)), lambda engine: engine.score("one two", " three", max_tokens=2))
