_base_ = ['../ffl_resnet8-x2_1xb128-20e_cifar10-folder.py']

model = dict(distiller=dict(loss_transfer=dict(type='KLDivergence', loss_weight=2.0), tau=4.0))
