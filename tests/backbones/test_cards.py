"""Published weights by name: their cards, and loading them in the layouts in which they come."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save
from typer.testing import CliRunner

from cmer.backbones.open_clip import cards
from cmer.backbones.open_clip.cards import Card, card, card_names
from cmer.backbones.open_clip.model import OpenClip
from cmer.backbones.open_clip.options import OpenClipOptions
from cmer.cli.main import app
from cmer.config.backbones import named_backbone
from cmer.errors import UserError
from cmer.profiling.parameters import count_parameters

State = dict[str, torch.Tensor]
SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}
ABOUT = {
    **{"title": "Small", "model": "small", "parameters": 1, "activation": "gelu", "evidence": "made here"},
    **{"citation": "none", "facts": ["none"]},
}


def pickled(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def parallel(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


LAYOUTS: dict[str, Callable[[State], bytes]] = {
    "plain.pt": pickled,
    "parallel.pt": lambda state: pickled(parallel(state)),
    "training.pt": lambda state: pickled({"epoch": 20, "state_dict": parallel(state), "optimizer": {"state": {}}}),
    "model.pth": lambda state: pickled({"model": state}),
    "hub.safetensors": save,
    "vector.pt": lambda state: pickled(state | {"logit_scale": state["logit_scale"].reshape(1)}),
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "small.json").write_text(json.dumps(SMALL))
    (folder / "small-quickgelu.json").write_text(json.dumps(SMALL | {"quick_gelu": True}))
    open_clip.add_model_config(folder)
    torch.manual_seed(5)
    found: State = open_clip.create_model("small").state_dict()
    return found | {"logit_scale": torch.tensor(3.0)}


@pytest.fixture
def write_card(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a card `small` the only one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cards, "FOLDER", tmp_path)

    def write(**changes: Any) -> None:
        about = ABOUT | {"weights": {"kind": "tag", "tag": "none"}} | changes
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(about))
        card.cache_clear()

    yield write
    card.cache_clear()


def small(**settings: Any) -> OpenClip:
    return OpenClip(OpenClipOptions(kind="open_clip", backbone="small", **settings))


def assert_loaded(backbone: OpenClip, state: State) -> None:
    read = backbone.model.state_dict()
    assert len(read) > 20 and all(torch.equal(tensor, state[name]) for name, tensor in read.items())
    assert backbone.shapes.logit_scale == pytest.approx(torch.tensor(3.0).exp().item())


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_local_copy_is_read_in_every_layout(write_card, state: State, tmp_path: Path, name: str) -> None:
    write_card()
    (tmp_path / name).write_bytes(LAYOUTS[name](state))
    assert_loaded(small(weights=name), state)
    plain = OpenClipOptions(kind="open_clip", model="small", weights=name, quick_gelu=False)
    assert_loaded(OpenClip(plain), state)


class Server(ThreadingHTTPServer):
    """Serves `files` (path → bytes), with the headers of the Hugging Face hub."""

    files: dict[str, bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.files = {}
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.url)
    template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield found
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("name", ["plain.pt", "training.pt", "hub.safetensors"])
def test_weights_are_fetched_from_a_hub_and_from_the_web(write_card, server: Server, state: State, name: str) -> None:
    data = LAYOUTS[name](state)
    server.files = {f"/me/clip/resolve/abc/ckpt/{name}": data, f"/weights/{name}": data}
    write_card(weights={"kind": "hub", "repo": "me/clip", "revision": "abc", "file": f"ckpt/{name}"})
    assert_loaded(small(), state)
    checksum = hashlib.sha256(data).hexdigest()
    write_card(weights={"kind": "url", "url": f"{server.url}/weights/{name}", "sha256": checksum})
    assert_loaded(small(), state)
    server.files = {}
    assert_loaded(small(), state)  # what was fetched is kept


def zipped(member: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("readme.txt", "hello")
        file.writestr(member, data)
    return stream.getvalue()


def test_weights_in_a_zip_on_the_web(write_card, server: Server, state: State) -> None:
    server.files = {"/ckpt.zip": zipped("small/epoch_20.pt", LAYOUTS["training.pt"](state))}
    weights = {"kind": "url", "url": f"{server.url}/ckpt.zip"}
    write_card(weights=weights | {"member": "small/epoch_20.pt"})
    assert_loaded(small(), state)
    write_card(weights=weights | {"member": "small/epoch_21.pt"})
    with pytest.raises(UserError, match=r"cannot fetch small, small/epoch_21.pt in .*: it holds no small/epoch_21.pt"):
        small()


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {n: t for n, t in s.items() if n != "visual.proj"}, r"\(missing visual.proj\)"),
        (lambda s: s | {"other": torch.zeros(1)}, r"\(unexpected other\)"),
        (lambda s: s | {"text_projection": torch.zeros(32, 8)}, r"\(another shape of text_projection\)"),
    ],
)
def test_another_models_weights_are_a_sentence(write_card, state: State, tmp_path: Path, change, reason: str) -> None:
    write_card()
    (tmp_path / "w.pt").write_bytes(pickled(change(state)))
    with pytest.raises(UserError, match=rf"cannot load weights w.pt: they are another model's {reason}"):
        small(weights="w.pt")


def test_another_activation_is_a_sentence_before_anything_is_fetched(write_card) -> None:
    write_card(activation="quick_gelu")
    for settings in ({}, {"weights": "none.pt"}):
        with pytest.raises(UserError, match=r"was trained with QuickGELU, small computes GELU; .* small-quickgelu"):
            small(**settings)


def test_what_cannot_be_fetched_is_a_sentence(write_card, server: Server, state: State) -> None:
    write_card(weights={"kind": "hub", "repo": "me/clip", "revision": "abc", "file": "w.pt"})
    with pytest.raises(UserError, match=r"cannot fetch small, w.pt of me/clip on the Hugging Face hub: .*as `weights`"):
        small()
    server.files = {"/w.pt": LAYOUTS["plain.pt"](state)}
    write_card(weights={"kind": "url", "url": f"{server.url}/w.pt", "sha256": "0" * 64})
    with pytest.raises(UserError, match=r"cannot fetch small, .*SHA-256"):
        small()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "one of `backbone` .* and `model`"),
        ({"backbone": "georsclip"}, "unknown published backbone 'georsclip'; known are georsclip_vit_b_32, laion"),
        ({"backbone": "georsclip_vit_b_32", "model": "ViT-B-32"}, "`model` is ViT-B-32, but .* has ViT-B-32-quickgelu"),
        ({"backbone": "skyclip_vit_b_32", "quick_gelu": True}, "`quick_gelu` is True, but skyclip_vit_b_32 has False"),
        ({"backbone": "skyclip_vit_b_32", "pretrained": "openai"}, "`backbone` .* or `pretrained`"),
    ],
)
def test_settings_that_contradict_the_card_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        OpenClipOptions(kind="open_clip", **settings)


# --- the cards --------------------------------------------------------------------------------------------------------


def test_a_card_gives_model_activation_and_title() -> None:
    options = OpenClipOptions(kind="open_clip", backbone="georsclip_vit_b_32")
    assert (options.model, options.quick_gelu, options.printed) == ("ViT-B-32-quickgelu", True, "GeoRSCLIP ViT-B-32")
    assert OpenClipOptions.model_validate(options.model_dump()) == options
    bare = options.without_weights()
    assert bare.backbone is None and bare.model == "ViT-B-32-quickgelu"


@pytest.mark.parametrize("name", card_names())
def test_a_card_fits_its_model(name: str) -> None:
    found = card(name)
    with torch.device("meta"):
        model = open_clip.create_model(found.model, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == found.parameters
    assert bool(open_clip.get_model_config(found.model).get("quick_gelu")) == found.quick_gelu
    if found.weights.kind == "tag":
        known = open_clip.get_pretrained_cfg(found.model, found.weights.tag)
        assert known and bool(known.get("quick_gelu")) == found.quick_gelu


def test_titles_differ_and_those_of_the_paper_are_the_papers_weights() -> None:
    titles = {card(name).title: name for name in card_names()}
    assert len(titles) == len(card_names())
    printed = {title: name for title, name in titles.items() if title.startswith("ViT-")}
    assert printed == {
        "ViT-B-32": "openai_vit_b_32", "ViT-B-16": "openai_vit_b_16",
        "ViT-L-14": "openai_vit_l_14", "ViT-H-14": "laion_vit_h_14",
    }  # fmt: skip


def test_the_preprocessing_is_that_of_the_tag(write_card, state: State, tmp_path: Path, monkeypatch) -> None:
    known = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "resize_mode": "squash", "interpolation": None}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: known)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda cfg: str(tmp_path / "w.pt"))
    (tmp_path / "w.pt").write_bytes(pickled(state))
    write_card()
    for found in (small(), small(weights="w.pt")):
        assert_loaded(found, state)
        assert (found.preprocess.mean, found.preprocess.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        assert (found.preprocess.resize, found.preprocess.interpolation) == ("squash", "bicubic")


def test_a_name_on_the_command_line_needs_no_weights() -> None:
    assert named_backbone("georsclip_vit_b_32").model == "ViT-B-32-quickgelu"
    assert count_parameters("georsclip_vit_b_32", "clip_lora") == 3_932_160


def test_the_command_lists_all_cards_and_prints_one_in_full() -> None:
    listed = CliRunner().invoke(app, ["backbones"]).output
    assert all(name in listed for name in card_names()) and "not stated" in listed
    one = CliRunner().invoke(app, ["backbones", "remoteclip_vit_b_32"]).output
    assert "rsicd: its training images and captions" in one and "sydney: not stated" in one
    assert "SHA-256 not stated" in one and "GELU (the README" in one
    assert "unknown published backbone" in str(CliRunner().invoke(app, ["backbones", "x"]).exception)


def test_a_card_needs_where_its_statements_come_from() -> None:
    with pytest.raises(ValueError, match="facts"):
        Card.model_validate(ABOUT | {"weights": {"kind": "tag", "tag": "x"}, "facts": []})
