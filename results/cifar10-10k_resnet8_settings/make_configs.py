"""Writes six settings of each method for two ResNet-8, as config files, and prints their paths.

Usage: python results/cifar10-10k_resnet8_settings/make_configs.py work_dirs/settings_configs
"""

import sys
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RAMP_UP = 3  # of 12 epochs, as 5 of 20


def kl(weight: float) -> dict:
    return dict(type='KLDivergence', loss_weight=weight)


def mutual(weight: float) -> dict:
    return dict(type='MutualKLDivergence', loss_weight=weight)


def transfer(weight: float) -> dict:
    return dict(loss_transfer=kl(weight))


def pcl(weight: float) -> dict:
    return dict(loss_transfer=kl(weight), loss_peers=kl(weight))


def mfef(weight: float) -> dict:
    """MFEF with enhanced classifiers, without attention."""
    taught = dict(loss_transfer=kl(weight), loss_self=kl(weight), loss_guide=kl(weight))
    return dict(attention=None, enhanced_head={}, **taught)


def axes(terms) -> dict[str, dict]:
    """Weight, temperature and ramp-up of a method, from ``terms(weight)``."""
    ramped = dict(ramp_up_epochs=RAMP_UP)
    return {
        'w1': terms(1.0) | ramped,
        'w2': terms(2.0) | ramped,
        'w4': terms(4.0) | ramped,
        'w2-t2': terms(2.0) | ramped | dict(tau=2.0),
        'w2-t4': terms(2.0) | ramped | dict(tau=4.0),
        'w2-ramp0': terms(2.0) | dict(ramp_up_epochs=0),
    }


attention = dict(attention=dict(type='DualAttentionConnector', identity_start=True))
of_mfef = axes(mfef)
del of_mfef['w2-t2']
SETTINGS = {
    'mfef': {**of_mfef, 'w2-identity': mfef(2.0) | attention | dict(ramp_up_epochs=RAMP_UP)},
    'ffl': axes(transfer),
    'one': axes(transfer),
    'dml': {
        'w1-t1': dict(loss_mutual=mutual(1.0)),
        'w1-t3': dict(loss_mutual=mutual(1.0), tau=3.0),
        'w2-t3': dict(loss_mutual=mutual(2.0), tau=3.0),
        'w2-t1': dict(loss_mutual=mutual(2.0)),
        'w2-t3-ramp3': dict(loss_mutual=mutual(2.0), tau=3.0, ramp_up_epochs=RAMP_UP),
        'w4-t3-ramp3': dict(loss_mutual=mutual(4.0), tau=3.0, ramp_up_epochs=RAMP_UP),
    },
    'kdcl': {
        'w1-t2': dict(loss_weight=1.0),
        'w2-t2': dict(loss_weight=2.0),
        'w1-t3': dict(loss_weight=1.0, tau=3.0),
        'w2-t3': dict(loss_weight=2.0, tau=3.0),
        'naive-w1-t2': dict(variant='naive'),
        'linear-w2-t3': dict(variant='linear', loss_weight=2.0, tau=3.0),
    },
    'okddip': axes(transfer),
    'pcl': axes(pcl),
    'ffsd': {
        'default': dict(ramp_up_epochs=RAMP_UP),
        't3': dict(tau=3.0, ramp_up_epochs=RAMP_UP),
        'fusion20': dict(fusion_weight=20.0, ramp_up_epochs=RAMP_UP),
        'fusion5': dict(fusion_weight=5.0, ramp_up_epochs=RAMP_UP),
        'mutual2': dict(loss_mutual=mutual(2.0), ramp_up_epochs=RAMP_UP),
        'decoder500': dict(decoder_weight=500.0, ramp_up_epochs=RAMP_UP),
    },
    'mcl': {
        'default': {},
        'w005': dict(vcl_weight=0.05, icl_weight=0.05),
        'w02': dict(vcl_weight=0.2, icl_weight=0.2),
        'soft2': dict(loss_soft_vcl=kl(2.0), loss_soft_icl=kl(2.0)),
        'temp007': dict(temperature=0.07),
        'temp02': dict(temperature=0.2),
    },
}


def write(folder: Path, method: str, setting: str, arguments: dict) -> None:
    students = 'x3' if method in ('okddip', 'ffsd') else 'x2'
    base = CONFIGS / method / f'{method}_resnet8-{students}_1xb128-20e_cifar10-folder.py'
    path = folder / f'{method}{setting}_resnet8.py'
    path.write_text(f"_base_ = ['{base}']\nmodel = dict(distiller=dict(**{arguments}))\n")
    print(path)


if __name__ == '__main__':
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, 'independent', '', {})
    for turn in range(6):  # a setting of each method before the next one
        for method, settings in SETTINGS.items():
            name, arguments = list(settings.items())[turn]
            write(folder, method, f'-{name}', arguments)
