"""Exports trained students as plain networks that do not need a distiller."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..engine.results import UNITS, unit_of
from .checkpoints import (
    OnePredictor,
    build_trained,
    class_names,
    read_checkpoint,
    validation_record,
)
from .checks import check_folder
from .formats import Predictor, check_formats, write
from .student_config import deployed_student, input_shape, preprocessor_config, resizing


def export(
    checkpoint: str | Path,
    out: str | Path,
    students: int | str = 0,
    formats: Sequence[str] = ('pth',),
    config: str | Path | None = None,
    ensemble: bool = False,
    fused: bool = False,
    allow_imports: Sequence[str] = (),
) -> list[Path]:
    """Write students of a checkpoint as plain networks, and check what was written.

    - ``pth``: an mmpretrain checkpoint, ``studentN.pth``, and its config, ``studentN.py``, for
      ``mmpretrain.get_model`` and ``ImageClassificationInferencer``. The config takes image files,
      also where the training images were in memory (those are taken for RGB, as mmpretrain's CIFAR
      is). It imports a plugin only where the student or the pipeline has a part of that plugin's.
    - ``safetensors``: the weights alone, and the same config:
      ``safetensors.torch.load_model(mmpretrain.get_model('studentN.py'), 'studentN.safetensors')``.
    - ``onnx`` and ``torchscript`` (``studentN.onnx``, ``studentN.pt``): the network. Input: images
      (B, 3, H, W), float32, B free, H and W as in ``input_size``, values 0 to 255 after
      ``(x - mean) / std``; channels are RGB if ``to_rgb``, else BGR. Output: logits (B, K). The
      tensors are called ``images`` and ``logits``. A TorchScript is moved to another device with
      ``torch.jit.load(..., map_location=...)``.

    ``classes``, ``mean``, ``std``, ``to_rgb`` and ``input_size`` are in the metadata of
    safetensors and onnx files, as JSON, and in the extra file ``metadata.json`` of TorchScript;
    likewise how the tests resize images: ``resize_edge``, what the shorter edge becomes, or
    ``resize_to``, what height and width become, before the centre of ``input_size`` is cropped
    (both null where the pipeline resizes nothing, or in another way), ``interpolation`` and
    ``backend`` (``cv2`` or ``pillow``).

    Every file is read back and compared with the same predictor of the trained algorithm on random
    images. All must agree, exactly (``onnx``: to 1e-4), or none is left. Existing files of the same
    names are replaced.

    Args:
        checkpoint: Of an :class:`OnlineDistill`, as mmengine saved it. The training config is in
            it.
        out: Folder for the files; made if it is not there.
        students: A number, ``'all'``, or ``'best'``: the student with the highest validation
            accuracy at the checkpoint's own epoch. A checkpoint is saved before its epoch is
            scored, so the ``results.json`` beside it is asked first, if it is of the same run; else
            the last earlier epoch counts. Of equal students the first is taken. What was chosen
            and why is printed.
        formats: Any of ``'pth'``, ``'safetensors'``, ``'onnx'``, ``'torchscript'``.
        config: Training config to use instead of the one in the checkpoint.
        ensemble: Also export the mean of the students' logits, as one module, in those of the
            formats that hold a whole module: ``onnx`` and ``torchscript``.
        fused: Likewise the fused classifier, with all students.
        allow_imports: Modules to import, for classes that the config in the checkpoint names. That
            config is data: it can name registered classes only, and its own ``custom_imports`` are
            not imported. ``allow_imports`` is ignored if ``config`` is given.

    Returns:
        The files.

    Raises:
        FileNotFoundError: The checkpoint or the config is not there.
        NotADirectoryError: ``out``, or a folder above it, is a file.
        ValueError: A format or a student is unknown, or there is no validation record to choose the
            best one by; the method has no fused classifier; the file is not a checkpoint of
            an ``OnlineDistill``, or of another architecture than the config, or its own config
            names what is not a registered class; or neither pipeline brings images to one size.
        ImportError: A package for one of the formats is not installed, or one that the config
            imports.
        RuntimeError: A file does not predict what the trained algorithm does.

    Example::

        export('work_dirs/demo/epoch_20.pth', 'exported', students='best', formats=['pth', 'onnx'])
    """
    checkpoint, out, formats = Path(checkpoint), Path(out), list(dict.fromkeys(formats))
    check_formats(formats)
    check_folder(out)
    of_modules = [name for name in formats if name in ('onnx', 'torchscript')]
    if (ensemble or fused) and not of_modules:
        raise ValueError(
            f'the ensemble and the fused classifier are not one network of mmpretrain, so '
            f'{", ".join(formats)} cannot hold them: add onnx or torchscript to the formats'
        )
    stored, cfg = read_checkpoint(checkpoint, config, allow_imports)
    algorithm = build_trained(stored, cfg)
    numbers = _chosen(students, len(algorithm.students), checkpoint, stored)

    shape = input_shape(cfg)
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = algorithm.predict_logits(images)
    if fused and 'fused' not in expected:
        raise ValueError(
            f'{type(algorithm.distiller).__name__} has no fused classifier to export; '
            f'it has {", ".join(expected)}'
        )
    classes = class_names(stored)
    preprocessor = preprocessor_config(cfg)
    metadata = dict(
        classes=classes,
        mean=preprocessor.get('mean'),
        std=preprocessor.get('std'),
        to_rgb=preprocessor.get('to_rgb', False),
        input_size=shape[1:],
        **resizing(cfg),
    )
    common: Any = dict(
        images=images,
        classes=classes,
        metadata={key: json.dumps(value) for key, value in metadata.items()},
    )

    out.mkdir(parents=True, exist_ok=True)
    written = []
    with TemporaryDirectory(dir=out, prefix='.export-') as partial:
        folder = Path(partial)
        for i in numbers:
            name = f'student{i}'
            network, student_cfg = deployed_student(cfg, i, algorithm.student_weights(i), classes)
            predictor = Predictor(network, config=folder / f'{name}.py', **common)
            if {'pth', 'safetensors'} & set(formats):
                student_cfg.dump(predictor.config)
                written.append((f'{name}.py', 'its config'))
            written += write(predictor, formats, folder / name, expected[name])
        for name in ['ensemble'] * ensemble + ['fused'] * fused:
            predictor = Predictor(OnePredictor(algorithm, name).eval(), **common)
            written += write(predictor, of_modules, folder / name, expected[name])
        for filename, _ in written:
            (folder / filename).replace(out / filename)
    for filename, remark in written:
        print(f'{out / filename}: {remark}')
    return [out / filename for filename, _ in written]


def _chosen(
    students: int | str, number: int, checkpoint: Path, stored: dict[str, Any]
) -> list[int]:
    """Numbers of the students to export."""
    if students == 'all':
        return list(range(number))
    if students == 'best':
        return [_best(number, checkpoint, stored)]
    if not str(students).isdecimal() or int(students) >= number:
        raise ValueError(
            f"student {students!r}, expected 0 to {number - 1}, 'best' or 'all': the checkpoint "
            f'has {number} students'
        )
    return [int(students)]


def _best(number: int, checkpoint: Path, stored: dict[str, Any]) -> int:
    history, source = validation_record(checkpoint, stored)
    unit = unit_of(history) if history else 'epoch'
    now = stored.get('meta', {}).get(unit, 0)
    scored = [entry for entry in history if entry[unit] <= now and 'student0' in entry]
    if not scored:
        raise ValueError(
            f'{checkpoint} has no validation record up to its {UNITS[unit]} {now} (ResultsHook '
            'keeps one), so the best student is not known: name one by its number'
        )
    last = max(scored, key=lambda entry: entry[unit])
    best = max(range(number), key=lambda i: last[f'student{i}'])
    figures = ', '.join(f'student{i} {last[f"student{i}"]:.2f} %' for i in range(number))
    print(
        f'best: student{best}; validation accuracy at {UNITS[unit]} {last[unit]} (checkpoint: '
        f'{UNITS[unit]} {now}), from {source}: {figures}'
    )
    if last[unit] != now:
        print(
            f'WARNING: {source} has no scores of {UNITS[unit]} {now}, which may name another '
            'student: keep results.json beside the checkpoint'
        )
    return best
