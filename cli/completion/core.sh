# The completions of `python EC.py ...`, for bash and zsh. Printed by `python EC.py completion`.

_ec_words() { # the words that may follow a command, or that a flag adds
    case $1 in
@words
    *) return 1 ;;
    esac
}

_ec_is_switch() { # whether a flag takes no value
    case $1 in
@switches) return 0 ;;
    *) return 1 ;;
    esac
}

_ec_values() { # the values of a flag or positional argument; the second argument is the typed part of the value
    case $1 in
@values
    HASH) _ec_hashes 'train extract lottery' "$2" ;;
    BATCH) _ec_batches ;;
    esac
    case $1 in
    --*teacher_name)
        _ec_hashes train "$2"
        _ec_answers "$2"
        ;;
    esac
}

_ec_hashes() { # experiments of the given kinds whose name begins with the typed part, and hashes that begin with it if it is not empty
    local kind folder root="${EC_ROOT:-@root}"
    for kind in $1; do
        for folder in "$root/$2"*; do
            case ${folder##*/} in
            "$kind"_*) [ ! -d "$folder" ] || printf '%s\n' "${folder##*/}" ;;
            esac
        done
        [ -n "$2" ] || continue
        for folder in "$root/${kind}_$2"*; do
            [ ! -d "$folder" ] || printf '%s\n' "${folder##*_}"
        done
    done
}

_ec_batches() { # the batches in the trash
    local path
    for path in "${EC_ROOT:-@root}"/trash/*; do
        [ ! -e "$path" ] || printf '%s\n' "${path##*/}"
    done
}

_ec_answers() { # files of answers, and folders that may contain such files
    local path
    for path in "$1"*; do
        case $path in
        *.npz | *.csv | *.tsv | *.npy) printf '%s\n' "$path" ;;
        *) [ ! -d "$path" ] || printf '%s\n' "$path/" ;;
        esac
    done
}

_ec_candidates() { # the completions of a command line; the arguments are the words after EC.py, the last one as far as it is typed
    [ -z "$ZSH_VERSION" ] || emulate -L sh
    local keys="" command="" flag="" head="" word key candidate
    while [ $# -gt 1 ]; do
        case $1 in
        --*=*) keys="$keys $1" flag="" ;;
        -*)
            keys="$keys $1" flag=$1
            ! _ec_is_switch "$1" || flag=""
            ;;
        *)
            if [ -n "$flag" ]; then
                keys="$keys $flag=$1" flag=""
            elif _ec_words "${command:+$command/}$1" > /dev/null; then
                command=${command:+$command/}$1
            elif _ec_words "$1" > /dev/null; then # a nested command
                keys="$keys $command" command=$1
            fi
            ;;
        esac
        shift
    done
    word=$1
    case $word in
    --*=*) flag=${word%%=*} word=${word#*=} ;;
    esac
    case $flag$word in
    -*[+,]*) head=${word%"${word##*[+,]}"} word=${word##*[+,]} ;;
    esac
    if [ -n "$flag" ]; then
        _ec_values "$flag" "$word"
    else
        _ec_words "${command:-EC.py}"
        for key in $keys; do
            _ec_words "$key" | grep -e '^--'
        done
    fi | while IFS= read -r candidate; do
        case $candidate in
        HASH | BATCH) _ec_values "$candidate" "$word" ;;
        *) printf '%s\n' "$candidate" ;;
        esac
    done | while IFS= read -r candidate; do
        case $candidate in
        --no-*) [ "${word#--n}" != "$word" ] || continue ;;
        esac
        case $candidate in
        "$word"*) printf '%s\n' "$head$candidate" ;;
        esac
    done
}
