# A short recipe for small comparisons: SGD with Nesterov momentum, cosine to zero.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    # what is only there for training decays at 1e-5
    paramwise_cfg=dict(custom_keys={'distiller': dict(decay_mult=0.02)}),
)
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, T_max=20)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
