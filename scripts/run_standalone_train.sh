#!/usr/bin/env bash
# The name that the model zoo's examples use for run_standalone_train_gpu.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_standalone_train_gpu.sh" "$@"
