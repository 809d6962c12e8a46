import hashlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from raster_cases import encoded, palette, picture, sentinel, tiff

from cmer.config.datasets import FolderDataset, Raster
from cmer.data.images import FolderImages, TarImages, decode, open_images
from cmer.data.raster import UndecodableError
from cmer.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # pytest undoes the filters of the modules that are tested
NATURAL = Raster(bands=(3, 2, 1))
RED = (200, 10, 20)
TWO = palette(RED)


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (encoded(Image.new("L", (4, 4), 77)), (77, 77, 77)),
        (encoded(Image.new("LA", (4, 4), (77, 0))), (77, 77, 77)),
        (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        (encoded(Image.new("1", (4, 4), 1), "TIFF"), (255, 255, 255)),
        (encoded(Image.new("RGBA", (4, 4), (*RED, 0))), RED),
        (encoded(Image.new("RGBA", (4, 4), (*RED, 0)), "TIFF"), RED),
        (encoded(TWO), RED),
        (encoded(TWO, "GIF"), RED),
        (encoded(TWO, "TIFF"), RED),
        (encoded(TWO, transparency=1), RED),
        (encoded(TWO, transparency=b"\x80\x00"), RED),
        (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0)),
        (encoded(Image.new("RGB", (4, 4), RED), "BMP"), RED),
        (encoded(Image.new("RGB", (4, 4), RED), "WEBP", lossless=True), RED),
        (encoded(Image.new("RGB", (4, 4), RED), "JPEG2000"), RED),
        (encoded(Image.new("RGB", (4, 4), RED), "PPM"), RED),
    ],
)
def test_pictures_of_every_mode_become_rgb(data: bytes, shown: tuple[int, int, int]) -> None:
    assert np.abs(pixels(decode(data)).astype(int) - shown).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (np.abs(pixels(decode(data)).astype(int) - (255, 0, 0)) <= 3).all()


def test_a_turned_photograph_is_set_upright() -> None:
    halves = Image.new("L", (16, 8), 0)
    halves.paste(255, (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture's left side is up
    data = encoded(halves.convert("RGB"), "JPEG", quality=100, exif=exif)
    upright = pixels(decode(data))
    assert upright.shape == (16, 8, 3) and upright[:7].max() < 10 and upright[9:].min() > 245
    spoilt = data.replace(b"Exif\0\0MM", b"Exif\0\0XX")  # metadata that nobody can read
    assert spoilt != data and pixels(decode(spoilt)).shape == (8, 16, 3)


def png_bomb(width: int, height: int) -> bytes:
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(999))]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


WHOLE = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"a text, named .jpg", "not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage", "not an image in a known format"),
        (b"<VRTDataset rasterXSize='2' rasterYSize='2'/>", "not an image in a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a known format"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[:20], "not an image|runcated"),
        (tiff(sentinel())[:2000], "4 bands of uint16"),
        (png_bomb(100_000, 100_000), "more than 178,956,970 pixels; cut it into tiles"),
        (encoded(Image.new("I;16", (4, 4), 4000)), "1 band of uint16"),
        (encoded(Image.new("I", (4, 4), 4000), "TIFF"), "1 band of int32"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "1 band of float32"),
        (encoded(Image.new("I", (4, 4), 4000), "PPM"), "do not have 8 bits per channel"),
    ],
)
def test_what_is_no_picture_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode(data)


def test_a_store_shows_rasters_by_the_settings_rule_and_names_it(tmp_path: Path) -> None:
    data = tiff(sentinel())
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tif").write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    options = FolderDataset(source="folder", title="Fields", root=str(tmp_path), raster=NATURAL)
    shown = open_images(options, tmp_path / "fields").load("a.tif", sha)
    assert (pixels(shown) == pixels(decode(data, NATURAL))).all()
    without = open_images(options.model_copy(update={"raster": None}), tmp_path / "fields")
    with pytest.raises(UserError, match=r"a\.tif .* 4 bands of uint16; set datasets\.fields\.raster"):
        without.load("a.tif", sha)


def test_what_is_no_readable_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with (tmp_path / "huge.tif").open("wb") as huge:
        huge.truncate(3 * 2**30)
    store = FolderImages(tmp_path)
    for name, reason in {"folder": "not a file", "pipe": "not a file", "link": "No such file"}.items():
        with pytest.raises(UserError, match=rf"{name}\.jpg cannot be read: .*{reason}"):
            store.load(f"{name}.jpg", "")
    with pytest.raises(UserError, match=r"huge\.tif cannot be read: it has 3\.0 GiB; cut it into tiles"):
        store.load("huge.tif", "")


@pytest.mark.parametrize("data", [b"", b"no tar" * 200, "cut"])
def test_a_broken_tar_is_named(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "images.tar"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        picture(tmp_path / "a.png", side=60)
        with tarfile.open(path, "w") as tar:
            for name in ("a.png", "b.png"):
                tar.add(tmp_path / "a.png", name)
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"images\.tar is broken"):
        TarImages(path)


def test_nothing_is_printed_about_large_odd_or_placeless_images(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGB", (11, 10))))
    (tmp_path / "odd.png").write_bytes(encoded(TWO, transparency=b"\x80\x00"))
    (tmp_path / "placeless.tif").write_bytes(tiff(sentinel()))
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from cmer.config.datasets import Raster\n"
        "from cmer.data.images import decode\n"
        "Image.MAX_IMAGE_PIXELS = 100\n"
        "for name in sys.argv[1:]: print(decode(Path(name).read_bytes(), Raster(bands=(3, 2, 1))).size)\n"
    )
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (["(11, 10)", "(4, 4)", "(24, 24)"], "")


@pytest.mark.parametrize(
    "headers",
    [
        {"size": "-5"},
        {"size": str(2**62)},
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.size": str(2**62), "GNU.sparse.map": "0,5"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**62)},
    ],
)
def test_a_tar_that_claims_other_sizes_is_named(tmp_path: Path, headers: dict[str, str]) -> None:
    picture(tmp_path / "a.png", side=60)
    with tarfile.open(tmp_path / "images.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tar.gettarinfo(tmp_path / "a.png", "a.png")
        member.pax_headers = headers
        with (tmp_path / "a.png").open("rb") as file:
            tar.addfile(member, file)
    with pytest.raises(UserError, match=r"images\.tar is broken"):
        TarImages(tmp_path / "images.tar")
