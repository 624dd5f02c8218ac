# As cifar10_fast.py, with a crop and a flip of its own for each of two students.
_base_ = ['cifar10_fast.py']
data_preprocessor = dict(num_views=2)
