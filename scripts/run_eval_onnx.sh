#!/usr/bin/env bash
# Evaluate an ONNX model on labelled images.
usage='DATA [--onnx_path M]'
# shellcheck source-path=SCRIPTDIR source=wrappers.sh
source "$(dirname "${BASH_SOURCE[0]}")/wrappers.sh"

read_words "onnx_path" "$@"
run_python eval_onnx.py "$subject" ${onnx_path:+--onnx_path "$onnx_path"}
