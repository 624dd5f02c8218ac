# What every run of an OnlineDistill shares: also the loops that score every predictor.
_base_ = ['common_runtime.py']
val_cfg = dict(type='mmrazor.OnlineDistillValLoop')
test_cfg = dict(type='mmrazor.OnlineDistillTestLoop')
