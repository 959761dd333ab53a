#!/usr/bin/env bash
# Evaluate weights on a GPU, or on the CPU where there is none.
usage='CONFIG [--device ID] [--checkpoint C] [--extra ARGS...]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "device checkpoint extra" "$@"
run_python eval.py --config "$subject" ${device:+--device_id "$device"} \
    ${checkpoint:+--pretrained "$checkpoint"} "${extra[@]}"
