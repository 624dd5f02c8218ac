"""What the log says of a loss term, and the shares that are drawn, from what was logged."""

import numpy as np
import pytest
from mmengine.logging import MessageHub

from mfef_mmrazor.engine.loss_terms import logged_losses, remarks, shares_by_epoch

LOSSES = {'student0.loss': 2.0, 'student1.loss': 1.0}


@pytest.mark.parametrize(
    ('loss', 'taught', 'said'),
    [
        (15.1, False, '10.1 times'),
        (14.9, False, None),
        (0.03, True, '0.99 % of the loss'),
        (0.03, False, None),
        (0.04, True, None),
        (0.0, True, None),  # switched off
    ],
)
def test_a_term_that_is_lost_or_drowns_the_others_is_named_with_what_to_try(loss, taught, said):
    found = remarks({**LOSSES, 'distill.loss_a': loss}, taught)
    assert list(found) == ['distill.loss_a'] * bool(said)
    if said:
        assert said in found['distill.loss_a'] and 'try' in found['distill.loss_a']


@pytest.mark.parametrize('logged', [4, 5])
def test_shares_are_of_whole_epochs_and_own_losses_are_one(logged):
    hub = MessageHub.get_instance(f'shares of {logged} steps')
    for step in range(logged):
        hub.update_scalar('train/loss', 4.0)
        hub.update_scalar('train/student0.loss', 1.0)
        hub.update_scalar('train/student1.loss', 2.0 - step % 2)
        hub.update_scalar('train/student1.accuracy', 30.0)
        hub.update_scalar('train/distill.loss_kd', float('nan') if step == 1 else -1.5)
    losses = logged_losses(hub)
    assert losses['student1.loss'].tolist() == [2, 1, 2, 1, 2][:logged]
    shares = shares_by_epoch(losses, steps=2)
    # own: 1 + mean of 2 and 1; the value that is not finite was left out of the training as well
    expected = {'own': 100 * 2.5 / 4, 'distill.loss_kd': 100 * 1.5 / 4}
    assert list(shares) == [2, 4]
    assert all(share == pytest.approx(expected) for share in shares.values())


def test_a_network_alone_has_no_shares():
    assert shares_by_epoch({'loss': np.ones(4)}, steps=2) == {}
