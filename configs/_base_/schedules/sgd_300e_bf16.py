# The same, the forward pass in bf16.
_base_ = ['sgd_300e.py']
optim_wrapper = dict(type='mmrazor.BFloat16OptimWrapper')
