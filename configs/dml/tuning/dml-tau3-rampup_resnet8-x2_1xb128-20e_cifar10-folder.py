_base_ = ['../dml_resnet8-x2_1xb128-20e_cifar10-folder.py']

model = dict(distiller=dict(tau=3.0, ramp_up_epochs=5))
