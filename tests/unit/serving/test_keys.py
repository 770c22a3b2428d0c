"""Keys are shown once, kept as hashes, and a file that cannot be trusted lets nobody in."""

import stat
from pathlib import Path

import pytest
from rich.console import Console

from xl.errors import UserError
from xl.serving import keys
from xl.serving.deploy import cluster_application
from xl.serving.keys import ENVIRONMENT_VARIABLE, Keyring, add_key, read_keys, revoke_key
from xl.serving.run import open_keyring, run_endpoint
from xl.serving.settings import ServedModel, Serving

MODELS = {"m": ServedModel(model="scripted", engine="scripted")}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RECHECK_SECONDS", 0.0)


def test_the_file_holds_no_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    secrets = [add_key(path, "ann"), add_key(path, "bob")]
    assert not any(secret.removeprefix("xl-") in path.read_text() for secret in secrets)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = Keyring(path, {})
    assert [ring.owner(secret) for secret in secrets] == ["ann", "bob"] and ring.owner("xl-guess") is None and ring.owner("") is None


def test_a_revoked_key_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    ring = Keyring(path, {})
    assert ring.owner(ann) == "ann"
    revoke_key(path, "ann")
    assert ring.owner(ann) is None and ring.owner(bob) == "bob"


@pytest.mark.parametrize("content", ["", "{}", '[{"name": "ann"}]', '[{"name": "ann", "salt": "zz", "digest": "00", "created": ""}]', None])
def test_a_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.json"
    ann = add_key(path, "ann")
    ring = Keyring(path, {})
    assert ring.owner(ann) == "ann"
    path.unlink() if content is None else path.write_text(content)
    assert ring.owner(ann) is None


def test_keys_may_come_from_the_environment(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys.json", {ENVIRONMENT_VARIABLE: "one, two,"})
    assert len(ring) == 2 and ring.owner("two") == "environment-2" and ring.owner("") is None


@pytest.mark.parametrize(("action", "name"), [(add_key, "ann"), (add_key, "a b"), (add_key, ""), (revoke_key, "bob")])
def test_mistakes_with_keys_are_told(tmp_path: Path, action: object, name: str) -> None:
    add_key(tmp_path / "keys.json", "ann")
    with pytest.raises(UserError, match="key"):
        action(tmp_path / "keys.json", name)  # type: ignore[operator]
    assert [key.name for key in read_keys(tmp_path / "keys.json")] == ["ann"]


def test_an_endpoint_without_keys_makes_one_and_shows_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serving = Serving(models=MODELS, keys_file=str(tmp_path / "keys.json"))
    ring = open_keyring(serving, Console(quiet=True))
    secret = capsys.readouterr().out.strip().split()[-1]
    assert ring is not None and ring.owner(secret) == "first"
    again = open_keyring(serving, Console(quiet=True))
    assert again is not None and again.owner(secret) == "first" and capsys.readouterr().out == ""


def test_keys_can_be_left_out_on_this_machine_alone() -> None:
    assert open_keyring(Serving(models=MODELS, require_key=False), Console(quiet=True)) is None
    with pytest.raises(ValueError, match="can be reached from others"):
        Serving(models=MODELS, require_key=False, host="0.0.0.0")
    with pytest.raises(UserError, match=r"args\.require_key: false is for `xl serve` on one machine alone"):
        cluster_application(Serving(models=MODELS, require_key=False))


def test_workers_do_not_inherit_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "secret")
    ring = open_keyring(Serving(models=MODELS, keys_file=str(tmp_path / "keys.json")), Console(quiet=True))
    import os

    assert ring is not None and ring.owner("secret") and ENVIRONMENT_VARIABLE not in os.environ


def test_a_model_that_is_not_there_is_told_before_anything_is_made_or_started(tmp_path: Path) -> None:
    for model in (ServedModel(model="./nothing"), ServedModel(model="org/name", adapters={"a": "./nothing"})):
        serving = Serving(models={"m": model}, keys_file=str(tmp_path / "keys.json"))
        with pytest.raises(UserError, match="nothing"):
            run_endpoint(serving, Console(quiet=True))
    assert not (tmp_path / "keys.json").exists()
