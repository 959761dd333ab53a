#!/usr/bin/env bash
# Train on several GPUs of this machine, one process each, or in several processes on the CPU where there is none.
usage='CONFIG [--num_devices N] [--device_ids 0,1,2,3] [--checkpoint C] [--extra ARGS...]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "num_devices device_ids checkpoint extra" "$@"
if [[ -n $device_ids ]]; then
    [[ $device_ids =~ ^[0-9]+(,[0-9]+)*$ ]] || refuse "--device_ids: '$device_ids' is no list as 0,1,2,3"
    IFS=, read -ra ids <<<"$device_ids"
    [[ -z $(printf '%s\n' "${ids[@]}" | sort | uniq -d) ]] || refuse "--device_ids: $device_ids names a device twice"
    count=${#ids[@]}
    [[ ${num_devices:-$count} == "$count" ]] || refuse "--num_devices is $num_devices, --device_ids names $count"
    num_devices=$count
    export CUDA_VISIBLE_DEVICES=$device_ids
fi
continue_from "$checkpoint"
if [[ -z $num_devices ]]; then
    num_devices=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count() or 1)') || exit 1
fi
run_python train.py --config "$subject" --device_num "$num_devices" "${start[@]}" "${extra[@]}"
