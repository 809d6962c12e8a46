"""Files that are no weights of the model: the error says what they are."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cmer.backbones.open_clip.model import OpenClip
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.errors import UserError

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}


class Code:
    """Unpickling it would make a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("configs")
    for name, width in {"weighed": 16, "wider": 8}.items():
        (folder / f"{name}.json").write_text(json.dumps(CONFIG | {"embed_dim": width}))
    open_clip.add_model_config(folder)
    state: dict[str, torch.Tensor] = open_clip.create_model("weighed").state_dict()
    return state


def load(path: Path, model: str = "weighed") -> OpenClip:
    return OpenClip(OpenClipOptions(kind="open_clip", model=model, weights=str(path), quick_gelu=False))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


def another(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)


def legacy(path: Path) -> None:
    torch.save({"a": Code()}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("w.pt", lambda path: None, "does not exist"),
        ("w.pt", Path.mkdir, "is a folder, not a regular file"),
        ("w.pt", os.mkfifo, "is a pipe, not a regular file"),
        ("w.pt", Path.touch, "the file is empty"),
        ("w.safetensors", Path.touch, "the file is empty"),
        ("w.pt", lambda path: path.write_bytes(pickle.dumps(Code())), "it contains Python classes"),
        ("w.pt", lambda path: torch.save({"a": Code()}, path), "it contains Python classes"),
        ("w.pt", legacy, "it contains Python classes"),
        ("w.pt", lambda path: path.write_bytes(b"<!DOCTYPE html><p>quota"), "it is a web page"),
        ("w.safetensors", lambda path: path.write_bytes(b"\n<html>"), "it is a web page"),
        ("w.pt", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
        ("w.pt", zipped, "it is a zip archive without tensors by name"),
        ("w.pt", lambda path: path.write_bytes(bytes(range(5, 250))), "it is not in a format of weights"),
        ("w.npz", lambda path: path.write_bytes(bytes(range(5, 250))), "it is not in a format of weights"),
        ("w.pt", lambda path: save_file({"a": torch.zeros(2)}, path), "its name does not end in .safetensors"),
        ("w.safetensors", lambda path: path.write_bytes(b"\x20\0\0\0\0\0\0\0{" + b" " * 40), "damaged safetensors"),
        ("w.safetensors", another, r"\(missing .* and 35 more; unexpected a\)"),
        ("w.pt", lambda path: torch.save({"state_dict": {"a": torch.zeros(2)}}, path), "another model's"),
        ("w.pt", lambda path: torch.save({}, path), "without tensors by name"),
        ("w.pt", lambda path: torch.save([1, 2], path), "without tensors by name"),
        ("w.pt", lambda path: torch.save(torch.zeros(3), path), "without tensors by name"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_weights_of_the_model_is_named_as_what_it_is(
    small: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], object],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}.*{reason}") as error:
        load(tmp_path / name)
    assert "weights_only" not in str(error.value) and len(str(error.value)) < 400
    assert not (tmp_path / "pwned").exists()


def test_another_width_is_named(small: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(small, tmp_path / "w.safetensors")
    load(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"another model's \(another shape of text_projection, visual.proj\)"):
        load(tmp_path / "w.safetensors", model="wider")


@pytest.fixture(scope="module")
def formats(small: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("formats")
    save_file(small, folder / "w.safetensors")
    stream = io.BytesIO()
    torch.save(small, stream)
    return {"w.safetensors": (folder / "w.safetensors").read_bytes(), "w.pt": stream.getvalue()}


@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_cut_files_and_changed_headers_are_a_sentence(
    formats: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(formats)))
    whole = formats[name]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    place = data.draw(st.integers(0, 200))
    changed = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path = tmp_path_factory.mktemp("changed") / name
    for content in (cut, changed):
        path.write_bytes(content)
        try:
            load(path)
        except UserError as error:
            assert "weights_only" not in str(error)
        else:
            assert content is changed  # of a zip, the first bytes say nothing that is needed
