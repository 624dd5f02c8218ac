"""The kinds of files that a trained network is exported to: how each is written and read back."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmpretrain import get_model
from torch import Tensor, nn

from ..models.builder import nearest

Network = Callable[[Tensor], Tensor]


@dataclass
class Predictor:
    """What is exported: a module from preprocessed images (B, 3, H, W) to logits (B, K)."""

    module: nn.Module
    images: Tensor
    """Random ones, to trace it with and to check it with."""
    classes: Sequence[str] | None
    metadata: dict[str, str]
    config: Path | None = None
    """mmpretrain config file of a student."""


def _write_pth(predictor: Predictor, path: Path) -> None:
    meta = dict(dataset_meta=dict(classes=predictor.classes) if predictor.classes else {})
    torch.save(dict(meta=meta, state_dict=predictor.module.state_dict()), path)


def _read_pth(predictor: Predictor, path: Path) -> Network:
    network = get_model(str(predictor.config))
    network.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
    return network


def _write_safetensors(predictor: Predictor, path: Path) -> None:
    from safetensors.torch import save

    path.write_bytes(save(predictor.module.state_dict(), predictor.metadata))


def _read_safetensors(predictor: Predictor, path: Path) -> Network:
    from safetensors.torch import load_model

    network = get_model(str(predictor.config))
    load_model(network, path)
    return network


def _write_onnx(predictor: Predictor, path: Path) -> None:
    import onnx

    # the exporter by tracing: the newer one writes files about 10 % larger for small networks.
    # Before torch 2.5 it is the only one of this function
    has_newer = 'dynamo' in signature(torch.onnx.export).parameters
    by_tracing: dict[str, Any] = dict(dynamo=False) if has_newer else {}
    torch.onnx.export(
        predictor.module,
        (predictor.images[:2],),
        path,
        input_names=['images'],
        output_names=['logits'],
        dynamic_axes=dict(images={0: 'batch'}, logits={0: 'batch'}),
        **by_tracing,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, predictor.metadata)
    onnx.save(model, path)


def _read_onnx(predictor: Predictor, path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(None, dict(images=images.numpy()))[0])


def _write_torchscript(predictor: Predictor, path: Path) -> None:
    traced = torch.jit.trace(predictor.module, predictor.images[:2], check_trace=False)
    # freezing drops what this predictor does not use; without fusion the outputs stay bit-identical
    frozen = torch.jit.freeze(traced, optimize_numerics=False)
    torch.jit.save(frozen, path, {'metadata.json': json.dumps(predictor.metadata)})


def _read_torchscript(predictor: Predictor, path: Path) -> Network:
    return torch.jit.load(path)


class Format(NamedTuple):
    """How a kind of file is written and read back, and how far it may differ."""

    suffix: str
    tolerance: float
    packages: tuple[str, ...]
    write: Callable[[Predictor, Path], None]
    read: Callable[[Predictor, Path], Network]


FORMATS = {
    'pth': Format('.pth', 0, (), _write_pth, _read_pth),
    'safetensors': Format('.safetensors', 0, ('safetensors',), _write_safetensors,
                          _read_safetensors),
    'onnx': Format('.onnx', 1e-4, ('onnx', 'onnxruntime'), _write_onnx, _read_onnx),
    'torchscript': Format('.pt', 0, (), _write_torchscript, _read_torchscript),
}  # fmt: skip


def check_formats(formats: Sequence[str]) -> None:
    """Raise if a format is unknown, or needs a package that is not installed.

    Raises:
        ValueError: It is unknown.
        ImportError: A package is missing.
    """
    for name in formats:
        if name not in FORMATS:
            hint = nearest(name, FORMATS)
            raise ValueError(f'unknown format {name!r}, expected any of {", ".join(FORMATS)}{hint}')
        for package in FORMATS[name].packages:
            if find_spec(package) is None:
                raise ImportError(
                    f'{package} is not installed, which the format {name} needs: '
                    f'pip install {" ".join(FORMATS[name].packages)}',
                    name=package,
                )


def write(
    predictor: Predictor, formats: Sequence[str], path: Path, expected: Tensor
) -> list[tuple[str, str]]:
    """Write a predictor in every format, and compare what is read back with what is expected."""
    written = []
    for name in formats:
        kind = FORMATS[name]
        file = path.with_suffix(kind.suffix)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of what is traced, and that torch means to replace it
            kind.write(predictor, file)
            logits = kind.read(predictor, file)(predictor.images)
        same_shape = logits.shape == expected.shape
        difference = (logits - expected).abs().max().item() if same_shape else float('inf')
        if not difference <= kind.tolerance:
            raise RuntimeError(
                f'{file.name}: its logits differ by up to {difference:.2g} from those of the '
                f'trained {path.name}, more than {kind.tolerance:g}; nothing was exported'
            )
        written.append((file.name, f'largest difference from the trained one {difference:.2g}'))
    return written
