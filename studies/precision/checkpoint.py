"""The state of an unfinished run in one file, written whole and read back only if it is undamaged.

The file is one line of text (what it is, and the SHA-256 digest of the rest), then what `torch.save`
writes. It is read without executing anything that it may contain.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dse.store import first_difference
from studies.precision.files import FolderError, write_whole

_MAGIC = b"bitfront checkpoint 1 sha256="
_HEADER = len(_MAGIC) + 64 + 1  # with the digest and the end of the line


def save(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the state of a run.

    Parameters
    ----------
    identity
        What makes it this run and no other, as JSON values.
    state
        Tensors, numbers and texts, in lists and dictionaries.
    """
    buffer = io.BytesIO()
    torch.save({"identity": dict(identity), "state": dict(state)}, buffer)
    content = buffer.getvalue()
    write_whole(path, _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def load(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state of a run.

    Raises
    ------
    FolderError
        The file is damaged, is no checkpoint, or is one of another run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}") from None
    header, payload = content[:_HEADER], content[_HEADER:]
    if not header.startswith(_MAGIC):
        raise FolderError(f"{path}: is no checkpoint; remove it to train this run anew")
    if header[len(_MAGIC) : -1] != hashlib.sha256(payload).hexdigest().encode():
        raise FolderError(f"{path}: is damaged (its digest differs); remove it to train this run anew")
    try:
        stored = torch.load(io.BytesIO(payload), weights_only=True)
        known, state = stored["identity"], stored["state"]
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise FolderError(f"{path}: is no checkpoint of a run ({reason}); remove it to train anew") from None
    if difference := first_difference(known, dict(identity), ""):
        raise FolderError(f"{path}: is a checkpoint of another run: {difference}")
    return dict(state)
