from .mfef_distiller import MFEFDistiller
from .online_distiller import OnlineDistiller

__all__ = ['MFEFDistiller', 'OnlineDistiller']
