# For one network that is deployed: mmengine's own loops, which score nothing twice.
_base_ = ['default_runtime.py']
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
