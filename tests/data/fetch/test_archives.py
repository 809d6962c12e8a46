"""Archives that are broken, or made to do harm."""

import gzip
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fetch_cases import (
    IMAGES,
    Files,
    annotations,
    assert_whole,
    known,
    layout,
    local,
    make_folder,
    make_tar,
    make_zip,
    tar_of,
)

from cmer.data.fetch import archives, copies, fetch_dataset
from cmer.errors import UserError

FILES = layout("", lists=False)
FIRST = "some_pictures/airport_1.jpg"


def refused(path: Path, tmp_path: Path) -> str:
    """Why the copy in `path` is not taken; nothing of it is written."""
    with pytest.raises(UserError) as error:
        fetch_dataset(known(local(path)), tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
    return str(error.value)


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_outside_the_folder_are_refused(make: Callable[[Path, Files], Path], name: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", FILES | {name: b"harm"})
    assert f"is refused: {name} points outside the archive" in refused(path, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_place_of_images_are_refused(kind: bytes, tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if name != FIRST}
    path = make_tar(tmp_path / "a.tar", files, link(FIRST, kind))
    assert "airport_1.jpg is a link or a device" in refused(path, tmp_path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("dataset_rsicd.json")
    info.external_attr = 0o120777 << 16
    files = {name: data for name, data in FILES.items() if name != info.filename}
    path = make_zip(tmp_path / "a.zip", {info: b"/etc/passwd", **files})
    assert f"dataset_rsicd.json is a link or a device in {path}" in refused(path, tmp_path)


def test_links_that_nobody_needs_do_no_harm(tmp_path: Path) -> None:
    fetch_dataset(known(local(make_tar(tmp_path / "a.tar", FILES, link("latest")))), tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_links_in_a_folder_of_the_users_are_followed(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere", FILES)
    make_folder(tmp_path / "copy", {"dataset_rsicd.json": annotations()})
    (tmp_path / "copy/images").symlink_to(tmp_path / "elsewhere/some_pictures")
    fetch_dataset(known(local(tmp_path / "copy")), tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_a_zip_member_that_hides_its_size_is_not_unpacked(tmp_path: Path) -> None:
    """16 MiB of zeros declared as 5,001 bytes."""
    path = make_zip(tmp_path / "a.zip", FILES | {FIRST: bytes(2**24)})
    path.write_bytes(path.read_bytes().replace((2**24).to_bytes(4, "little"), (5001).to_bytes(4, "little")))
    assert f"{FIRST} in {path} cannot be read: Bad CRC-32" in refused(path, tmp_path)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_file_larger_than_any_image_is_refused(
    make: Callable[[Path, Files], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 100_000)
    path = make(tmp_path / "a.tar", FILES | {FIRST: bytes(100_001)})
    assert "airport_1.jpg has 0.0 GiB, more than the limit" in refused(path, tmp_path)


def test_images_that_are_too_large_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MAX_BYTES", sum(map(len, IMAGES.values())) - 1)
    assert "its images have 0 GiB; the limit is 0 GiB" in refused(make_zip(tmp_path / "a.zip", FILES), tmp_path)


def test_a_tar_that_unpacks_to_more_than_is_read_is_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    path = make_tar(tmp_path / "a.tar.gz", {"zeros": bytes(2**20)} | FILES)
    assert f"{path} is refused: it unpacks to more than 0 GiB" in refused(path, tmp_path)


def test_a_header_that_declares_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("comment")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    assert "a header declares 1,099,511,627,776 bytes" in refused(path, tmp_path)


def test_a_size_below_zero_does_not_lead_in_circles(tmp_path: Path) -> None:
    info = tarfile.TarInfo("backwards")
    info.size = -512
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**14))
    assert "backwards declares -512 bytes" in refused(path, tmp_path)


def test_encrypted_zips_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + flags] |= 1
            place = data.find(signature, place + 1)
    path.write_bytes(data)
    assert "dataset_rsicd.json is encrypted" in refused(path, tmp_path)


def test_zips_that_are_not_read_piecemeal_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for name, data in FILES.items():
            file.writestr(name, data)
    assert "is compressed with a method other than deflate" in refused(path, tmp_path)


def test_zips_of_the_future_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 6] = 202
    path.write_bytes(data)
    assert f"{path} cannot be read: zip file version 20.2" in refused(path, tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES | {"old/airport_1.jpg": b"another"})
    assert f"airport_1.jpg occurs twice, as {FIRST} and old/airport_1.jpg" in refused(path, tmp_path)


def test_class_lists_in_another_encoding_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES | {"txtclasses_rsicd/bridge.txt": "Brücke_1.jpg".encode("latin-1")})
    assert f"{path}: txtclasses_rsicd/bridge.txt" in refused(path, tmp_path)


def test_two_annotation_files_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES | {"old/dataset_rsicd.json": annotations()})
    assert "dataset_rsicd.json occurs twice" in refused(path, tmp_path)


def test_other_files_of_one_name_do_not_matter(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES | {"a/Thumbs.db": b"", "b/Thumbs.db": b"", "a/._airport_1.jpg": b""})
    fetch_dataset(known(local(path)), tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_folders_of_windows_are_folders(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {name.replace("/", "\\"): data for name, data in FILES.items()})
    fetch_dataset(known(local(path)), tmp_path / "out")
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", bytes(512), b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c\x00\x04"])
def test_what_is_no_archive_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert str(path) in refused(path, tmp_path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_is_cut_short_is_not_taken_for_whole(name: str, share: float, tmp_path: Path) -> None:
    path = (make_zip if name == "a.zip" else make_tar)(tmp_path / name, FILES)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "cannot be read" in refused(path, tmp_path)


def test_a_tar_that_is_cut_between_two_images_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    assert "it is truncated" in refused(path, tmp_path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_gives_the_dataset_or_a_reason(name: str, tmp_path: Path) -> None:
    """Damage where there is structure: 60 copies with some bytes of headers, directory or annotations changed."""
    small = {name: data[:500] for name, data in FILES.items()} | {"dataset_rsicd.json": annotations()}
    path = (make_zip if name == "a.zip" else make_tar)(tmp_path / name, small)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            fetch_dataset(known(local(path)), tmp_path / "out")
            outcomes.add("taken")
        except UserError as error:
            assert "no source provides RSICD" in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes
    path.write_bytes(whole)
    fetch_dataset(known(local(path)), tmp_path / "out")
    assert (tmp_path / "out/images.tar").read_bytes() == tar_of({name: data[:500] for name, data in IMAGES.items()})
