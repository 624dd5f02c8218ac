# For one network that is deployed: mmengine's own loops, which score nothing twice.
_base_ = ['common_runtime.py']
val_cfg = dict()
test_cfg = dict()
