_base_ = ['../dml_resnet8-x2_1xb128-20e_cifar10-folder.py']

model = dict(distiller=dict(loss_mutual=dict(type='MutualKLDivergence', loss_weight=2.0)))
