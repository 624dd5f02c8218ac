"""Temporary stub."""


def apply() -> None:
    import mmengine.utils
    import mmrazor
    import torch

    real = mmrazor.digit_version
    mmrazor.digit_version = lambda v: real('1.12.1') if v == torch.__version__ else real(v)
    try:
        import mmrazor.structures.quantization  # noqa
    finally:
        mmrazor.digit_version = real
