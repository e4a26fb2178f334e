# What can follow what in `python EC.py ...`, for bash and zsh alike. Made by `python EC.py completion`.

_ec_words() { # what may stand in a command, or is there because of a flag
    case $1 in
@words
    *) return 1 ;;
    esac
}

_ec_is_switch() {
    case $1 in
@switches) return 0 ;;
    *) return 1 ;;
    esac
}

_ec_values() { # of a flag, or of what stands for one; and what is written of it
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

_ec_hashes() { # of experiments of some kinds, by the beginning of the name or, where there is any, of its digits
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

_ec_batches() { # of the trash
    local each
    for each in "${EC_ROOT:-@root}"/trash/*; do
        [ ! -e "$each" ] || printf '%s\n' "${each##*/}"
    done
}

_ec_answers() { # files of answers, and folders that may have some
    local each
    for each in "$1"*; do
        case $each in
        *.npz) printf '%s\n' "$each" ;;
        *) [ ! -d "$each" ] || printf '%s\n' "$each/" ;;
        esac
    done
}

_ec_candidates() { # the words after EC.py, the last of them as far as it is written
    [ -z "$ZSH_VERSION" ] || emulate -L sh
    local keys="" command="" flag="" head="" word each
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
            elif _ec_words "$1" > /dev/null; then # a command within another
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
        for each in $keys; do
            _ec_words "$each" | grep -e '^--'
        done
    fi | while IFS= read -r each; do
        case $each in
        HASH | BATCH) _ec_values "$each" "$word" ;;
        *) printf '%s\n' "$each" ;;
        esac
    done | while IFS= read -r each; do
        case $each in
        --no-*) [ "${word#--n}" != "$word" ] || continue ;;
        esac
        case $each in
        "$word"*) printf '%s\n' "$head$each" ;;
        esac
    done
}
