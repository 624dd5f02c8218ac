"""Run by the launcher: one step of each config of mmrazor's that is named, without its weights."""

import json
import logging
import os
import sys
from pathlib import Path

import mmrazor
import torch
from mmengine.config import Config
from mmengine.hub import get_model
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODEL_WRAPPERS, init_default_scope
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS

ROOT = Path(mmrazor.__file__).parent / '.mim/configs/distill/mmcls'


def without_downloads(cfg):
    """Untrained teachers serve as well."""
    if isinstance(cfg, (list, tuple)):
        for part in cfg:
            without_downloads(part)
    if isinstance(cfg, dict):
        cfg.pop('teacher_ckpt', None)
        if (cfg.get('init_cfg') or {}).get('type') == 'Pretrained':
            cfg.pop('init_cfg')
        if 'pretrained' in cfg:
            cfg['pretrained'] = False
        for part in cfg.values():
            without_downloads(part)


def step(path):
    cfg = Config.fromfile(path)
    init_default_scope('mmpretrain')
    without_downloads(cfg.model)
    for name, teacher in (cfg.model.get('teachers') or {}).items():  # a file is obligatory
        torch.save(get_model(**teacher.build_cfg).state_dict(), f'{name}.pth')
        teacher.ckpt_path = f'{name}.pth'
    model = MODELS.build(cfg.model)
    size = 32 if 'cifar' in path.name else 64
    samples = [DataSample().set_gt_label(i % 3) for i in range(4)]
    for i, sample in enumerate(samples):  # of mmrazor's data set for CRD
        sample.set_field(torch.tensor(i), 'sample_idx')
        sample.set_field(torch.arange(16385), 'contrast_sample_idxs')
    data = dict(inputs=[torch.zeros(3, size, size, dtype=torch.uint8)] * 4, data_samples=samples)
    if torch.distributed.is_initialized():
        model = MODEL_WRAPPERS.build(dict(cfg.model_wrapper_cfg, module=model))
    losses = model.train_step(data, build_optim_wrapper(model, cfg.optim_wrapper))
    return {name: float(value) for name, value in losses.items()}


logging.disable(logging.WARNING)
found = {name: step(ROOT / name) for name in sys.argv[2:]}
if os.environ.get('RANK', '0') == '0':
    Path(sys.argv[1]).write_text(json.dumps(found))
