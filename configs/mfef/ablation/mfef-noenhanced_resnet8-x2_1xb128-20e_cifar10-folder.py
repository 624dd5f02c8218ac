_base_ = ['../mfef_resnet8-x2_1xb128-20e_cifar10-folder.py']

model = dict(distiller=dict(enhanced_head=None))
