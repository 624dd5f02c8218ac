from .clilr_distiller import CLILRDistiller
from .configurable_online_distiller import ConfigurableOnlineDistiller
from .dccl_distiller import DCCLDistiller
from .dcm_distiller import DCMDistiller
from .dkel_distiller import DKELDistiller
from .dml_distiller import DMLDistiller
from .ffl_distiller import FFLDistiller
from .ffsd_distiller import FFSDDistiller
from .independent_distiller import IndependentDistiller
from .kdcl_distiller import KDCLDistiller
from .mcl_distiller import MCLDistiller
from .mfef_distiller import MFEFDistiller
from .okddip_distiller import OKDDipDistiller
from .okdph_distiller import OKDPHDistiller
from .one_distiller import ONEDistiller
from .online_distiller import OnlineDistiller
from .pcl_distiller import PCLDistiller
from .switokd_distiller import SwitOKDDistiller

__all__ = [
    'CLILRDistiller',
    'ConfigurableOnlineDistiller',
    'DCCLDistiller',
    'DCMDistiller',
    'DKELDistiller',
    'DMLDistiller',
    'FFLDistiller',
    'FFSDDistiller',
    'IndependentDistiller',
    'KDCLDistiller',
    'MCLDistiller',
    'MFEFDistiller',
    'OKDDipDistiller',
    'OKDPHDistiller',
    'ONEDistiller',
    'OnlineDistiller',
    'PCLDistiller',
    'SwitOKDDistiller',
]
