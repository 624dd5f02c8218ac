_base_ = ['../mfef_resnet20-x2_1xb128-20e_cifar10-folder.py']

model = dict(
    distiller=dict(
        attention=None,
        enhanced_head=dict(type='mmpretrain.LinearClsHead'),
        loss_transfer=dict(type='KLDivergence', loss_weight=2.0),
        loss_self=dict(type='KLDivergence', loss_weight=2.0),
        loss_guide=dict(type='KLDivergence', loss_weight=2.0),
    )
)
