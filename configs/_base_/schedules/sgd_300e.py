# The field's usual CIFAR recipe: SGD with Nesterov momentum, a tenth at epochs 150 and 225.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    # what is only there for training decays at 1e-5
    paramwise_cfg=dict(custom_keys={'distiller': dict(decay_mult=0.02)}),
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[150, 225], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
