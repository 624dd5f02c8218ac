# What every run of an OnlineDistill shares: common_runtime.py, and loops that score every predictor.
_base_ = ['common_runtime.py']
val_cfg = dict(type='mmrazor.OnlineDistillValLoop')
test_cfg = dict(type='mmrazor.OnlineDistillTestLoop')
