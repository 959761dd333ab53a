#!/usr/bin/env bash
# Classify an image or a folder of images with an ONNX model.
usage='DATA [--onnx_path M] [--output F]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "onnx_path output" "$@"
run_python infer_onnx.py "$subject" ${onnx_path:+--onnx_path "$onnx_path"} ${output:+--output "$output"}
