"""What happens to a training batch after the crop: flips, AutoAugment, erasing, mixing; batched, on the device.

Random choices are drawn on the host, as pure functions of (seed, epoch, index) or (seed, step, process), so that the
device never has to answer a question. `spec` and `settings` check options without torch; `pipeline` does the work.
"""
