_base_ = ['../dml_resnet20-x2_1xb128-20e_cifar10-folder.py']

model = dict(distiller=dict(ramp_up_epochs=5))
