#!/usr/bin/env bash
# Classify an image or a folder of images on a GPU, or on the CPU where there is none.
usage='DATA [--checkpoint C] [--arch A] [--output F]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "checkpoint arch output" "$@"
run_python infer.py "$subject" ${checkpoint:+--checkpoint "$checkpoint"} ${arch:+--arch "$arch"} \
    ${output:+--output "$output"}
