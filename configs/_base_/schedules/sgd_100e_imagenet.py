# mmpretrain's ImageNet recipe: SGD, lr 0.1 for 256 images a step, a tenth every 30 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    # what is only there for training decays at 1e-5
    paramwise_cfg=dict(custom_keys={'distiller': dict(decay_mult=0.1)}),
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
# enabled, the lr follows the number of images that all processes take in a step
auto_scale_lr = dict(enable=False, base_batch_size=256)
