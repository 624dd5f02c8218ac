"""Shows what a trained method does with an image: maps, gates, Grad-CAM, predictions."""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import Tensor, nn

from ..cfg_type import Cfg
from ..datasets import LoadIntactImage
from ..engine.checkpoint_files import write_atomically
from ..engine.results import write_figure
from ..models.algorithms import OnlineDistill
from ..models.connectors.dual_attention import ChannelGate, SpatialGate
from ..models.connectors.feature_fusion import FeatureFusionConnector
from ..models.connectors.multi_scale import MultiScaleConnector
from .checkpoints import OnePredictor, build_trained, class_names, read_checkpoint
from .checks import check_folder
from .student_config import default_scope, file_pipeline, preprocessor_config

if TYPE_CHECKING:  # slow to import, and few need it
    from matplotlib.figure import Figure


@dataclass
class Panel:
    """One array to draw: a map (H, W), bars (C,), or a picture (H, W, 3) with a map over it."""

    title: str
    values: np.ndarray
    over: np.ndarray | None = None


@dataclass
class View:
    """What is shown of one image: rows of panels by name, and the predictions."""

    rows: dict[str, list[Panel]] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)


def show_maps(
    checkpoint: str | Path,
    images: Sequence[str | Path],
    student: int | str = 'all',
    out: str | Path = 'maps',
    config: str | Path | None = None,
    allow_imports: Sequence[str] = (),
) -> list[Path]:
    """Draw, for each image, what the students and the method's parts make of it.

    A row per student: its last map before the extraction, after it by group (mean over the
    channels; with the receptive field in pixels of the map), the channel gate as bars, the spatial
    gate over the picture, and Grad-CAM (with the package grad-cam, if it is installed). Below them
    the fused map and its Grad-CAM, and what each predictor says. What a method lacks is left out.

    Args:
        checkpoint: Of an :class:`OnlineDistill`, as mmengine saved it.
        images: Image files; prepared as in the tests of the training config.
        student: A number or ``'all'``.
        out: Folder for ``NAME.png`` and ``index.html``; made if it is not there.
        config: Training config to use instead of the one in the checkpoint.
        allow_imports: Modules to import, for classes that the config in the checkpoint names; see
            :func:`mfef_mmrazor.apis.export`.

    Returns:
        The pictures, then the page.

    Raises:
        FileNotFoundError: The checkpoint or an image is not there.
        ValueError: A file is no picture, there is no such student, two images have one name, an
            image would be replaced by its picture, or the checkpoint is not one of an
            ``OnlineDistill``.

    Example::

        show_maps('work_dirs/demo/epoch_20.pth', ['cat.png'], out='maps')
    """
    checkpoint, out, files = Path(checkpoint), Path(out), [Path(image) for image in images]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f'image not found: {file}')
        if (out / f'{file.stem}.png').resolve() == file.resolve():
            raise ValueError(f'{file} would be replaced by its own picture: choose another out')
        LoadIntactImage()(dict(img_path=str(file)))  # raises if it is no picture
    if len({file.stem for file in files}) < len(files):
        raise ValueError('two images have the same name, and so would their pictures: rename one')
    check_folder(out)
    stored, cfg = read_checkpoint(checkpoint, config, allow_imports)
    algorithm = build_trained(stored, cfg)
    number = len(algorithm.students)
    if student != 'all' and not (str(student).isdecimal() and int(student) < number):
        raise ValueError(f"student {student!r}, expected 0 to {number - 1} or 'all'")
    shown = list(range(number)) if student == 'all' else [int(student)]
    classes = class_names(stored)

    out.mkdir(parents=True, exist_ok=True)
    written = []
    for file in files:
        view = look(algorithm, *prepare(cfg, file), shown, classes)
        written.append(out / f'{file.stem}.png')
        write_figure(written[-1], draw(view, file.name), dpi=110)
    page = out / 'index.html'
    write_atomically(page, _page(written).encode())
    return [*written, page]


def prepare(cfg: Cfg, file: Path) -> tuple[Tensor, np.ndarray]:
    """The network's input (1, 3, H, W), and the picture it was made of, RGB (H, W, 3) in [0, 1]."""
    with default_scope(cfg):
        transform = Compose([TRANSFORMS.build(dict(each)) for each in file_pipeline(cfg)])
        preprocessor = MODELS.build(preprocessor_config(cfg))
    data = pseudo_collate([transform(dict(img_path=str(file)))])
    picture = data['inputs'][0].permute(1, 2, 0).numpy()[..., ::-1] / 255  # read as BGR
    return preprocessor(data)['inputs'], picture.clip(0, 1)


def look(
    algorithm: OnlineDistill,
    inputs: Tensor,
    picture: np.ndarray,
    students: Sequence[int],
    classes: Sequence[str] | None = None,
) -> View:
    """What the students and the method's parts make of one image (1, 3, H, W)."""
    with torch.no_grad(), _seen(algorithm) as seen:
        logits = algorithm.predict_logits(inputs)
    cams = _grad_cams(algorithm, inputs, students, logits)
    view = View()
    for i in students:
        panels = []
        # some methods keep their parts in the student, others in the distiller
        parts = [*algorithm.students[i].modules()]
        for modules in ('multi_scale', 'attention'):
            own = getattr(algorithm.distiller, modules, None)
            parts += [] if own is None else [*own[i].modules()]
        for part in parts:
            if part in seen:
                panels += _panels(part, *seen[part], picture)
        if f'student{i}' in cams:
            panels.append(Panel('Grad-CAM', picture, cams[f'student{i}']))
        view.rows[f'student{i}'] = [Panel('image', picture), *panels]
    fusions = [part for part in seen if isinstance(part, FeatureFusionConnector)]
    fused = [Panel('fused map', _mean(seen[part][1])) for part in fusions]
    if 'fused' in cams:
        fused.append(Panel('Grad-CAM', picture, cams['fused']))
    if fused:
        view.rows['fused'] = fused
    for name, z in logits.items():
        share, k = z[0].softmax(dim=0).max(dim=0)
        label = classes[int(k)] if classes else int(k)
        view.predictions.append(f'{name}: {label} ({100 * float(share):.0f} %)')
    return view


def _panels(part: nn.Module, given: Any, out: Tensor, picture: np.ndarray) -> list[Panel]:
    if isinstance(part, ChannelGate):
        return [Panel('channel gate', out.flatten().numpy())]
    if isinstance(part, SpatialGate):
        return [Panel('spatial gate', picture, out[0, 0].numpy())]
    assert isinstance(part, MultiScaleConnector)
    panels = [Panel('map before', _mean(given))]
    sizes = [part.width, *(kept for kept, *_ in part.splits)]
    for i, group in enumerate(out.split(sizes, dim=1)):
        panels.append(Panel(f'after: group {i + 1}\nsees {2 * i + 1} x {2 * i + 1}', _mean(group)))
    return panels


def _mean(feature: Tensor) -> np.ndarray:
    return feature[0].mean(dim=0).numpy()


@contextmanager
def _seen(algorithm: OnlineDistill) -> Iterator[dict[nn.Module, tuple[Any, Tensor]]]:
    """Inputs and outputs of the parts that are drawn, in the order in which they run."""
    kinds = (MultiScaleConnector, ChannelGate, SpatialGate, FeatureFusionConnector)
    seen: dict[nn.Module, tuple[Any, Tensor]] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = args[0][-1] if isinstance(args[0], tuple) else args[0]  # necks take tuples
        seen[module] = (given, output[-1] if isinstance(output, tuple) else output)

    parts = [part for part in algorithm.modules() if isinstance(part, kinds)]
    handles = [part.register_forward_hook(keep) for part in parts]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _grad_cams(
    algorithm: OnlineDistill, inputs: Tensor, students: Sequence[int], logits: dict[str, Tensor]
) -> dict[str, np.ndarray]:
    """Grad-CAM (H, W) of the predicted class, where the last layer before pooling is a map."""
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError:
        # its own dependency opencv-python-headless would overwrite a part of opencv-python
        print_log('no Grad-CAM: pip install --no-deps "grad-cam<1.5" ttach tqdm', logger='current')
        return {}
    targets = {f'student{i}': getattr(algorithm.students[i], 'backbone', None) for i in students}
    fusion = [part for part in algorithm.modules() if isinstance(part, FeatureFusionConnector)]
    if 'fused' in logits and fusion:
        targets['fused'] = fusion[0].fuse
    cams = {}
    for name, layer in targets.items():
        layer = None if layer is None else _map_layer(algorithm, layer, inputs)
        if layer is None:
            continue
        with GradCAM(OnePredictor(algorithm, name), [layer]) as cam:
            cams[name] = cam(input_tensor=inputs, targets=None)[0]  # of the predicted class
    return cams


def _map_layer(algorithm: OnlineDistill, network: nn.Module, inputs: Tensor) -> nn.Module | None:
    """The module in a network that gives its last map (B, C, H, W); a backbone gives a tuple."""
    outputs: dict[nn.Module, Any] = {}
    handles = [
        module.register_forward_hook(lambda module, _, out: outputs.update({module: out}))
        for module in network.modules()
    ]
    with torch.no_grad():
        algorithm.predict_logits(inputs)
    for handle in handles:
        handle.remove()
    last = outputs[network]
    last = last[-1] if isinstance(last, (tuple, list)) else last
    return next((module for module, out in outputs.items() if out is last and out.ndim == 4), None)


def draw(view: View, title: str) -> 'Figure':
    """One figure: a row per student, then the fused map, then what each predictor says."""
    from matplotlib.figure import Figure

    columns = max(map(len, view.rows.values()))
    half = -(-len(view.predictions) // 2)
    says = [title, '    '.join(view.predictions[:half]), '    '.join(view.predictions[half:])]
    width = max(2 * columns + 1, 0.085 * max(map(len, says)))
    figure = Figure(figsize=(width, 2.3 * len(view.rows) + 1.2), layout='constrained')
    grid = figure.subplots(len(view.rows), columns, squeeze=False)
    for row, (name, panels) in zip(grid, view.rows.items(), strict=True):
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel(name, fontsize='large')
        for axes, panel in zip(row, panels, strict=False):
            axes.set_title(panel.title, fontsize='medium')
            _draw_panel(axes, panel)
    figure.suptitle('\n'.join(says), fontsize='medium', parse_math=False)  # a file's name
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    if panel.values.ndim == 1:
        axes.bar(range(len(panel.values)), panel.values, width=1)
        axes.set(ylim=(0, 1), xlabel='channel', box_aspect=1)
        return
    height, width = panel.values.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(panel.values, extent=extent)
    if panel.over is not None:
        axes.imshow(panel.over, extent=extent, alpha=0.5, cmap='jet', vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def _page(pictures: Sequence[Path]) -> str:
    figures = '\n'.join(
        f'<h2>{html.escape(path.stem)}</h2><img src="{quote(path.name)}" '
        f'alt="maps of {html.escape(path.stem)}" style="max-width:100%">'
        for path in pictures
    )
    return f'<!doctype html><meta charset="utf-8"><title>Maps</title>\n{figures}\n'
