"""Files of key material, replaced together: a folder is a symlink to a hidden, numbered generation.

A reader that resolves the folder once and then reads its files always gets a key and a certificate that belong
together. The generation before the current one is kept for readers that are just in the middle.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from certs.names import CertsError

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes `folder` hold exactly these files, in one step. Raises OSError; the old folder then stays as it was.

    Raises CertsError for a plain folder, which somebody has copied there: that cannot be replaced in one step.
    """
    if folder.is_dir() and not folder.is_symlink():
        aside = f".{folder.name}.0"
        raise CertsError(f"{folder} is a plain folder: rename it to {aside}, and make it a symlink to that")
    folder.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    generation = _new_generation(folder)
    try:
        for name, content in files.items():
            _write_file(generation / name, content)
        _sync(generation)
        _point(folder, generation)
    except OSError:
        shutil.rmtree(generation, ignore_errors=True)
        raise
    _sweep(folder, int(generation.name.rpartition(".")[2]) - 1)


def _generations(folder: Path) -> dict[int, Path]:
    prefix = f".{folder.name}."
    found = (path for path in folder.parent.iterdir() if path.name.startswith(prefix))
    return {int(number): path for path in found if (number := path.name.removeprefix(prefix)).isdecimal()}


def _new_generation(folder: Path) -> Path:
    while True:
        number = max(_generations(folder), default=0) + 1
        path = folder.parent / f".{folder.name}.{number}"
        try:
            path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:  # another issuer took this number just now
            continue
        return path


def _write_file(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(folder: Path, generation: Path) -> None:
    link = folder.parent / f"{generation.name}.link"
    link.symlink_to(generation.name)
    try:
        link.rename(folder)
    except OSError:
        link.unlink()
        raise
    _sync(folder.parent)


def _sweep(folder: Path, oldest_kept: int) -> None:
    for number, path in _generations(folder).items():
        if number < oldest_kept:
            shutil.rmtree(path, ignore_errors=True)
