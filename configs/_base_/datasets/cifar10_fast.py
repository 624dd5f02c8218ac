# CIFAR-10 as in cifar10.py, in memory; whole batches are cropped and flipped at once.
_base_ = ['cifar10.py']
data_preprocessor = dict(type='mmpretrain.InMemoryDataPreprocessor', crop_size=32, flip_prob=0.5)
train_dataloader = dict(
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='InMemory',
        padding=4,
        dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=[]),
    ),
)
val_dataloader = dict(
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='InMemory',
        test_mode=True,
        dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test', pipeline=[]),
    ),
)
test_dataloader = val_dataloader
