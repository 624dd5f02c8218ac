# default_runtime.py, but scored in bf16, as a schedule `*_bf16.py` trains; see docs/speed.md.
_base_ = ['default_runtime.py']
val_cfg = dict(fp16=True, dtype='bfloat16')
test_cfg = dict(fp16=True, dtype='bfloat16')
