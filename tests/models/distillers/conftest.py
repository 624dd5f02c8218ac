import pytest
from mmengine.logging import MessageHub


@pytest.fixture
def epoch():
    """Sets the epoch that mmengine's runner would announce."""
    hub = MessageHub.get_current_instance()
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)
