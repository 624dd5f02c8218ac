import torch

from mfef_mmrazor.models.precision import full_precision


def test_half_precision_of_both_kinds_becomes_full_and_all_else_stays():
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    found = [full_precision(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert found == [torch.float32] * 3 + [torch.float64]
