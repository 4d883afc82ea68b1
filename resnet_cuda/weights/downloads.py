"""Files at an address: downloaded into the cache of torch.hub or huggingface_hub if they are not there."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from resnet_cuda.weights.files import FileError

SCHEMES = ("http", "https", "detectron2", "hf")

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
# In a repository of Hugging Face without a named file, the first of these that it has.
_HF_FILES = ("model.safetensors", "pytorch_model.bin")

# torch's convention: 8 or more digits of the file's SHA256 before the extension. A name may end with a date instead.
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")
_DATE = re.compile(r"20[0-9]{6}")


def local_file(address: str, argument: str = "source") -> str:
    """The local path of the file at ``address``, downloaded if it is missing.

    A file of ``http://`` or ``https://`` is cached in ``torch.hub.get_dir()``/checkpoints (set by ``$TORCH_HOME`` or
    ``torch.hub.set_dir``) under the last part of its path, as by ``torch.hub.load_state_dict_from_url``; a file of the
    detectron2 model zoo under the whole path, since its names repeat. If the name ends with a hash
    (``resnet50-0676ba61.pth``), the file must have this hash.

    Raises:
        ValueError: for another address, naming ``argument``.
        FileError: if the file cannot be downloaded, with its URL and the path to put it; if its hash is not that of its
            name.
    """
    scheme, _, rest = address.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(
            f"{argument} is {address!r}; allowed addresses begin with {', '.join(f'{s}://' for s in SCHEMES)}"
        )
    if scheme == "hf":
        return _hugging_face(address, rest, argument)
    url = _DETECTRON2 + rest if scheme == "detectron2" else address
    place = _place(url, argument)
    prefix = hash_of_name(place.name)
    if not place.exists():
        _download(url, place, prefix)
    elif prefix is not None and not _sha256(place).startswith(prefix):
        raise FileError.about(
            str(place), f"its SHA256 does not begin with {prefix}, as its name says; download {url} again"
        )
    return str(place)


def hash_of_name(name: str) -> str | None:
    """The digits of the SHA256 in a file's name, or None."""
    match = _HASH.search(name)
    return match[1] if match and not _DATE.fullmatch(match[1]) else None


def _place(url: str, argument: str) -> Path:
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    if url.startswith(_DETECTRON2):
        parts = unquote(urlsplit(url).path).split("/")[2:]
        place = checkpoints.joinpath("detectron2", *parts)
    else:
        parts = [os.path.basename(urlsplit(url).path)]
        place = checkpoints / parts[0]
    if not all(parts) or not {".", ".."}.isdisjoint(parts):
        raise ValueError(f"{argument} is {url!r}; its path must end with the name of a file")
    return place


def _download(url: str, place: Path, prefix: str | None) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), prefix, progress=True)
    except Exception as error:  # urllib's, of sockets and TLS, and RuntimeError for another hash
        raise FileError.about(
            str(place), f"it is not there, and cannot be downloaded ({error}); put {url} there"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError.about(str(path), error.strerror or str(error)) from None
    return digest.hexdigest()


def _hugging_face(address: str, rest: str, argument: str) -> str:
    owner, _, rest = rest.partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not owner or not repository:
        raise ValueError(f"{argument} is {address!r}; it must be hf://owner/repository[@revision][/file]")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise ValueError(
            f"{argument} is {address!r}, which needs the package huggingface_hub: pip install huggingface_hub ({error})"
        ) from error
    names = (file,) if file else _HF_FILES
    for name in names:
        try:
            return str(hf_hub_download(f"{owner}/{repository}", name, revision=revision or None))
        except LocalEntryNotFoundError as error:  # also an EntryNotFoundError: offline, and not in the cache
            option = f" --revision {revision}" if revision else ""
            raise FileError.about(
                address,
                f"it is not in the cache, and cannot be downloaded ({str(error)[:200]}); "
                f"where there is a network, run: hf download {owner}/{repository} {name}{option}",
            ) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the repository, the revision, the account, the network
            raise FileError.about(address, f"it cannot be downloaded: {str(error)[:300]}") from error
    raise FileError.about(address, f"the repository has no file {' or '.join(names)}")
