# Shared by the shell wrappers: their words, the Python in use, and how an argument is refused. Sourced, never run.
# A wrapper sets `usage` before it sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the wrappers read the variables below, and set `usage`

wrapper=$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)

# What read_words finds: the word without a flag, the options by their names, and all that follows --extra.
subject='' checkpoint='' device='' num_devices='' device_ids='' onnx_path='' arch='' output=''
extra=()

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$root/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python
fi

# refuse MESSAGE: one line on what is wrong, one on what is right.
refuse() {
    echo "$wrapper: $1" >&2
    echo "usage: $wrapper $usage" >&2
    exit 2
}

# read_words "NAME ..." "$@": the words of a wrapper that takes one word without a flag and these options.
read_words() {
    local known=" $1 " name value
    shift
    while (($#)); do
        case $1 in
            -h | --help)
                echo "usage: $wrapper $usage"
                exit 0
                ;;
            --extra)
                [[ $known == *" extra "* ]] || refuse "unknown option --extra"
                shift
                extra=("$@")
                break
                ;;
            -*)
                name=${1%%=*}
                name=${name#--}
                name=${name//-/_}
                [[ $known == *" $name "* && $name != extra ]] || refuse "unknown option ${1%%=*}"
                if [[ $1 == *=* ]]; then
                    value=${1#*=}
                else
                    value=${2:-}
                    [[ $value != --* ]] || value=
                    shift
                fi
                [[ -n $value ]] || refuse "--$name takes a value"
                printf -v "$name" %s "$value"
                ;;
            *)
                [[ -z $subject && -n $1 ]] || refuse "unexpected argument '$1'"
                subject=$1
                ;;
        esac
        shift
    done
    [[ -n $subject ]] || refuse "${usage%% *} is missing"
}

# continue_from CHECKPOINT: sets `start`, the options of train.py that go on from it.
continue_from() {
    start=()
    [[ -n $1 ]] || return 0
    if [[ -d $1 ]]; then
        start=(--resume "$1")
    elif [[ -e $1 ]]; then
        echo "$wrapper: $1 is a weight file and no training checkpoint: a new run starts from its weights" >&2
        start=(--pretrained "$1")
    else
        refuse "--checkpoint: there is no $1"
    fi
}

# run_python SCRIPT [ARGS...]: ends as that script ends, and signals reach it directly.
run_python() {
    exec "$PYTHON" "$root/$1" "${@:2}"
}
