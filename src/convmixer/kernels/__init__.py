"""ConvMixer at the speed of the hardware: the same mathematics in fewer passes over the memory.

`depthwise` is one convolution as a differentiable torch operator; `block` runs a whole ConvMixer from its own module
and parameters. Kernels are written in Triton (`device`); `limits` says where they apply, and elsewhere torch's own
operators do the work, which is then logged once. `tiling` holds every choice of tile sizes, a `plan` says which of the
right forms each pass takes, and `tuning` finds those that are fastest on this machine.
"""
