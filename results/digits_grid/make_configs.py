"""Writes the configs of this comparison: every method with three equal students."""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / 'work_dirs/digits_grid_configs'
DISTILLERS = dict(
    independent="type='IndependentDistiller'",
    dml="type='DMLDistiller'",
    one="type='ONEDistiller', in_channels=64, ramp_up_epochs=5",
    clilr="type='CLILRDistiller', ramp_up_epochs=5",
    ffl="type='FFLDistiller', in_channels=64, num_classes=10, ramp_up_epochs=5",
    okddip="type='OKDDipDistiller', in_channels=64, ramp_up_epochs=5",
    kdcl="type='KDCLDistiller'",
    dcm="type='DCMDistiller', in_channels=[16, 32], num_classes=10",
    pcl="type='PCLDistiller', in_channels=64, num_classes=10, ramp_up_epochs=5",
    ffsd="type='FFSDDistiller', in_channels=[16, 32, 64], num_classes=10",
    mcl="type='MCLDistiller', in_channels=64",
    mfef="type='MFEFDistiller', in_channels=64, num_classes=10, ramp_up_epochs=5",
    switokd="type='SwitOKDDistiller'",
    dccl="type='DCCLDistiller', in_channels=[16, 32, 64], num_classes=10, ramp_up_epochs=5",
    okdph="type='OKDPHDistiller'",
    dkel="type='DKELDistiller', in_channels=64, num_classes=10, momentum=0.04, ramp_up_epochs=5",
)
STAGES = """,
        recorders=dict(
            stage1=dict(type='ModuleOutputs', source='backbone.stages.0'),
            stage2=dict(type='ModuleOutputs', source='backbone.stages.1'),
        ),
    """  # as WRN's modules are called
CONFIG = """\
_base_ = [
    '../../configs/_base_/datasets/{data}.py',
    '../../configs/_base_/models/{network}_cifar.py',
    '../../configs/_base_/schedules/sgd_20e.py',
    '../../configs/_base_/default_runtime.py',
]
{views}
model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student] * 3,
    same_initial_weights={same},
    distiller=dict({distiller}),
)
train_cfg = dict(val_interval=5)
"""
VIEWS = """
*augmentation, pack = _base_.train_pipeline
views = dict(type='MultiView', num_views=[4], transforms=[augmentation])
train_dataloader = dict(dataset=dict(pipeline=[views, pack]))
"""  # for each student and the hybrid network; equal students of equal views would stay equal

FOLDER.mkdir(parents=True, exist_ok=True)
for network in ('resnet8', 'wrn-16-1'):
    for method, distiller in DISTILLERS.items():
        path = FOLDER / f'{method}_{network}-x3_1xb32-20e_digits.py'
        same = method == 'okdph'  # as its paper has it
        if network.startswith('wrn') and method in ('dcm', 'ffsd', 'dccl'):
            distiller += STAGES
        path.write_text(
            CONFIG.format(
                network=network,
                data='digits_views' if same else 'digits',
                views=VIEWS if same else '',
                distiller=distiller,
                same=same,
            )
        )
