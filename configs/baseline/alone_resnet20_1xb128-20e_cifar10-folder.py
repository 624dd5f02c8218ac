_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/models/resnet20_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/single_runtime.py',
]

model = dict(_base_.student, data_preprocessor=_base_.data_preprocessor)
