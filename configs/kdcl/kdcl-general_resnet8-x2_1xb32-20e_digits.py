_base_ = ['kdcl_resnet8-x2_1xb32-20e_digits.py']

# a tenth of the training images is held out: the students' weights are found on it
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='KFoldDataset',
        num_splits=10,
        seed=0,
        dataset=_base_.train_dataloader.dataset,
    )
)
custom_hooks = [*_base_.custom_hooks, dict(type='mmrazor.HeldOutHook')]

model = dict(distiller=dict(variant='general'))
