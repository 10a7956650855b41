"""Files that tests of the command line write and change."""

from __future__ import annotations

from pathlib import Path


def write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


def read(file: Path) -> str:
    return file.read_text("utf-8")


def change(file: Path, old: str, new: str) -> None:
    """Puts ``new`` in place of ``old``, which is there."""
    text = read(file)
    assert old in text
    write(file, text.replace(old, new))


def append(file: Path, text: str) -> None:
    write(file, read(file) + text)
