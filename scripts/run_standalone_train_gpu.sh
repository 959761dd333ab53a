#!/usr/bin/env bash
# Train on one GPU, or on the CPU where there is none.
usage='CONFIG [--device ID] [--checkpoint C] [--extra ARGS...]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "device checkpoint extra" "$@"
continue_from "$checkpoint"
run_python train.py --config "$subject" ${device:+--device_id "$device"} "${start[@]}" "${extra[@]}"
