# CINIC-10, trained on `train` and `valid`, 180,000 pictures.
_base_ = ['cinic10.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(_base_.train_dataloader.dataset, data_prefix='train'),
            dict(_base_.train_dataloader.dataset, data_prefix='valid'),
        ],
    )
)
