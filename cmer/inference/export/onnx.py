"""Both towers as ONNX graphs, with a description of their inputs beside them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cmer.errors import UserError
from cmer.inference.export.encoders import Encoders, TextEncoder, encoders
from cmer.inference.export.probe import TEXTS, pictures, require_close
from cmer.inference.model import RetrievalModel, Vectors, load
from cmer.io import atomic, write_json

SUFFIX = ".onnx"
LARGEST_DIFFERENCE = 1e-4
"""Of a component of a unit embedding in float32."""
OPSET = 18
LARGEST_GRAPH = 2**31
"""Maximum size of a graph with its weights: ONNX files are messages of protobuf."""
IMAGE, TEXT, TOKENIZER = ".image.onnx", ".text.onnx", ".tokenizer.json"
COUNTS = (1, 20)
"""Numbers of images that the graph is compared with; it was traced with another."""


def write(run: str, out: Path) -> dict[str, Any]:
    """Write `{out}.image.onnx`, `{out}.text.onnx`, `{out}.json` and perhaps `{out}.tokenizer.json`.

    The first two take batches of any size: squares of RGB values, of which the graph makes normalised pixels and all
    views, and tokens. They give unit embeddings in float32. The suffix of `out` is replaced.

    Raises:
        UserError: ONNX or its runtime is not installed, the towers are too large for a file, a part of
            them is not in ONNX, or ONNX Runtime computes other embeddings.
    """
    _require_libraries()
    model = load(run)
    here = encoders(model)
    squares = torch.stack([here.preprocess.square(picture) for picture in pictures()])
    tokens = here.texts.tokenize(list(TEXTS))
    with ExitStack() as stack:
        image, text = (stack.enter_context(atomic(out.with_suffix(suffix))) for suffix in (IMAGE, TEXT))
        with _failing(model.name):
            _write_graph(here.images, {"squares": squares}, ("batch",), image)
            _write_graph(here.texts, {"ids": tokens.ids, "mask": tokens.mask}, ("batch", "length"), text)
            difference = max(_image_difference(here, squares, image), _text_difference(here, text))
        size = image.stat().st_size + text.stat().st_size
    tokenizer = _write_tokenizer(here.texts, out)
    write_json(out.with_suffix(".json"), _description(model, here, out, tokenizer) | {"largest_difference": difference})
    return {"bytes": size, "largest_difference": difference}


@contextmanager
def _failing(run: str) -> Iterator[None]:
    """Turn what the exporter and the runtime raise, which is nearly anything, into a sentence."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"run {run} cannot be written as ONNX: {reason}") from error


def _require_libraries() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise UserError("the format onnx needs the extra `onnx`; `pip install 'cmer[onnx]'` adds it") from None


def _write_graph(encoder: nn.Module, inputs: dict[str, Tensor], free: Sequence[str], file: Path) -> None:
    """Trace an encoder; the first dimensions of its inputs, named in `free`, may have any size."""
    size = sum(p.numel() * p.element_size() for p in encoder.parameters())
    if size > LARGEST_GRAPH:
        raise UserError(f"the towers have {size / 2**30:.1f} GiB, more than an ONNX file holds; export to safetensors")
    axes = {name: dict(enumerate(free)) for name in inputs}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of what may depend on the input's size
        torch.onnx.export(
            encoder,
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=["embeddings"],
            dynamic_axes=axes | {"embeddings": dict(enumerate(free[:1]))},
            opset_version=OPSET,
            dynamo=False,
        )


def _image_difference(here: Encoders, squares: Tensor, file: Path) -> float:
    batches = [squares.repeat(count, 1, 1, 1)[:count] for count in COUNTS]
    return _difference(here.images, [{"squares": batch} for batch in batches], file)


def _text_difference(here: Encoders, file: Path) -> float:
    batches = [here.texts.tokenize(texts) for texts in ([TEXTS[0]], [*TEXTS, *TEXTS])]
    return _difference(here.texts, [{"ids": tokens.ids, "mask": tokens.mask} for tokens in batches], file)


@torch.no_grad()
def _difference(encoder: nn.Module, batches: Sequence[dict[str, Tensor]], file: Path) -> float:
    """Largest difference of ONNX Runtime's embeddings from torch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    read = [each.name for each in session.get_inputs()]  # without those that the encoder does not use
    found: list[Vectors] = [session.run(None, {name: batch[name].numpy() for name in read})[0] for batch in batches]
    expected: list[Vectors] = [encoder(*batch.values()).numpy() for batch in batches]
    return require_close(found, expected, LARGEST_DIFFERENCE, "ONNX Runtime")


def _write_tokenizer(texts: TextEncoder, out: Path) -> str:
    """Write the tokenizer where it is one of the library `tokenizers`; how to have the tokens, in words."""
    fast = getattr(getattr(texts.owner, "_tokenizer", None), "backend_tokenizer", None)
    if fast is None:
        return "as the model's library tokenises (open_clip.get_tokenizer for a model of open_clip), without padding"
    file = out.with_suffix(TOKENIZER)
    with atomic(file) as temporary:
        fast.save(str(temporary))
    return f"tokenizers.Tokenizer.from_file('{file.name}').encode_batch(texts): ids, and attention_mask as the mask"


def _description(model: RetrievalModel, here: Encoders, out: Path, tokenizer: str) -> dict[str, Any]:
    """What the graphs read and give, with an example to try a program with."""
    tokens = here.texts.tokenize(list(TEXTS))
    with torch.no_grad():
        embeddings = here.texts(tokens.ids, tokens.mask)
    size, resize = here.preprocess.size, here.preprocess.resize
    sides = f"shorter side to {size}, then the centre" if resize == "shortest" else f"both sides to {size}"
    return {
        "model": model.name,
        "digest": model.digest,
        "embeddings": f"float32 [batch, {embeddings.shape[1]}], unit vectors: their dot product is the score",
        "image": {
            "file": out.with_suffix(IMAGE).name,
            "squares": f"uint8 [batch, 3, {size}, {size}], RGB",
            "resize": f"{sides}, {here.preprocess.interpolation} and antialiased",
            "views": model.spec.views,  # the graph normalises, and averages over the views
        },
        "text": {
            "file": out.with_suffix(TEXT).name,
            "ids": "int64 [batch, length]",
            "mask": "bool [batch, length], true for tokens and false for padding, if the graph has this input",
            "tokens": tokenizer,
        },
        "example": {
            "texts": list(TEXTS),
            "ids": tokens.ids.tolist(),
            "mask": tokens.mask.tolist(),
            "scores": (embeddings @ embeddings.T).tolist(),
        },
    }
