import pytest

from mfef_mmrazor import functional


@pytest.mark.parametrize(
    'epoch, weight', [(0, 0.0067379), (40, 0.2865048), (79, 0.9992191), (80, 1.0), (300, 1.0)]
)
def test_ramp_up_over_80_epochs(epoch, weight):
    assert functional.sigmoid_ramp_up(epoch, 80) == pytest.approx(weight, abs=5e-8)


def test_ramp_up_rises_and_can_be_switched_off():
    weights = [functional.sigmoid_ramp_up(epoch, 10) for epoch in range(11)]
    assert weights == sorted(set(weights))
    assert functional.sigmoid_ramp_up(0, 0) == 1.0
    with pytest.raises(ValueError, match='length is -1 epochs'):
        functional.sigmoid_ramp_up(0, -1)
    with pytest.raises(ValueError, match='length is nan epochs'):
        functional.sigmoid_ramp_up(0, float('nan'))
    with pytest.raises(ValueError, match="length is '80' epochs, expected a number"):
        functional.sigmoid_ramp_up(0, '80')
