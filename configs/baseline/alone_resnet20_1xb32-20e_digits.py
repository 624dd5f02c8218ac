_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/models/resnet20_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

# one network on its own, under mmengine's own loops
model = dict(_base_.student, data_preprocessor=_base_.data_preprocessor)
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
