# CIFAR-10 as in cifar10_folder.py, but read once, and kept in memory and in a file of data_root.
# Whole batches are cropped and flipped at once.
_base_ = ['cifar10_folder.py']
data_root = 'data/cifar10_folder'
data_preprocessor = dict(
    type='mmpretrain.InMemoryDataPreprocessor',
    crop_size=32,
    flip_prob=0.5,
    to_rgb=False,  # they are RGB in memory already
)
load = [dict(type='LoadIntactImage', imdecode_backend='cv2')]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='InMemory',
        padding=4,
        to_rgb=True,
        cache=True,
        dataset=dict(
            type='ImageFolder',
            data_root=data_root,
            data_prefix='train',
            num_classes=10,
            pipeline=load,
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='InMemory',
        test_mode=True,
        to_rgb=True,
        cache=True,
        dataset=dict(
            type='ImageFolder',
            data_root=data_root,
            data_prefix='test',
            num_classes=10,
            pipeline=load,
        ),
    ),
)
test_dataloader = val_dataloader
