"""The figure of heat maps."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from reporting_cases import require_readable

from cmer.errors import UserError
from cmer.io import write_sealed
from cmer.reporting.base import FigureSpec, Files, draw_figure

V1 = {"name": "lite.cmer_v1", "dataset": "squares", "backbone_printed": "lite", "method": "cmer", "options": {}}
CMER = V1 | {"name": "lite.cmer"}
MAP = [[0.0, 0.2], [1.0, 0.1]]


def write(
    folder: Path, run: str, parts: list[str], captions=("a car beside a long road in the wood", "a pond ."), **changed
):
    picture = BytesIO()
    Image.new("RGB", (32, 32), (30, 90, 40)).save(picture, "JPEG")
    pairs = [
        {
            "caption": caption,
            "image_id": number,
            "score": 0.5,
            "picture": base64.b64encode(picture.getvalue()).decode(),
            "maps": dict.fromkeys(parts, MAP if number else [[0.0] * 2] * 2),
            "shuffled": dict.fromkeys(parts, -0.25),
        }
        | changed
        for number, caption in enumerate(captions)
    ]
    file = folder / f"{run}.json"
    write_sealed(file, {"pairs": pairs, "record": {"spec": {"run": run, "dataset": "squares"}}}, "cmer heat-maps")
    return file


def draw(files: list[Path], runs=(V1, CMER)):
    spec = FigureSpec.model_validate({"kind": "grad_cam", "runs": list(runs), "seeds": [1]})
    return draw_figure(spec, Files(heat_maps=files))


def test_every_run_and_part_has_a_column_and_every_map_its_correlation(tmp_path, texts_of) -> None:
    files = [write(tmp_path, "lite.cmer_v1", ["image tower"])]
    files += [write(tmp_path, "lite.cmer", ["side branch", "tower and branch"])]
    figure, table = draw(files[::-1])
    assert len(figure.axes) == 2 * (1 + 1 + 3)
    found = texts_of(figure)
    words = [text for text, _ in found]
    assert "a pond." in words  # no line begins with the full stop
    assert words.count("nothing adds to the score") == 3 and sum("0.25" in text for text in words) == 3
    require_readable(figure, found)
    assert table["run"].tolist() == ["lite.cmer_v1"] * 2 + ["lite.cmer"] * 4
    assert set(table["shuffled_correlation"]) == {"-0.25"}
    assert table["highest"].iloc[1] == "row 2, column 1 of 2"


def test_files_that_do_not_fit_are_named(tmp_path) -> None:
    one = write(tmp_path, "lite.cmer_v1", ["image tower"])
    with pytest.raises(UserError, match=r"needs heat maps of lite\.cmer; run `cmer heat-maps`"):
        draw([one])
    other = write(tmp_path, "lite.cmer", ["side branch"], captions=("a moon", "a pond"))
    with pytest.raises(UserError, match="of different captions"):
        draw([one, other])
    bad = write(tmp_path, "lite.cmer", ["side branch"], maps={"side branch": [[0.0, 1.0]]})
    with pytest.raises(UserError, match=r"(?s)lite\.cmer\.json.*not square"):
        draw([one, bad])
