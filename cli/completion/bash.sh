
_ec_bash() {
    local -a words=()
    local position previous="" word start=-1
    for ((position = 0; position <= COMP_CWORD; position++)); do # bash splits words at = and :
        word=${COMP_WORDS[position]}
        if ((${#words[@]})) && [[ $word == [=:] || $previous == [=:] ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        previous=$word
    done
    for position in "${!words[@]}"; do
        [[ ${words[position]} != EC.py && ${words[position]} != */EC.py ]] || { start=$((position + 1)) && break; }
    done
    if ((start < 0 || start >= ${#words[@]})); then
        _ec_bash_fallback "$@"
        return
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(_ec_candidates "${words[@]:start}")
    [[ ${COMPREPLY[*]-} != */ ]] || compopt -o nospace 2> /dev/null
}

_ec_bash_fallback() { # the completion that python had before
    local loader
    if [[ -z $_ec_previous ]]; then
        for loader in _comp_load _completion_loader; do
            if declare -F "$loader" > /dev/null; then
                "$loader" python > /dev/null 2>&1
                _ec_remember
                complete -o bashdefault -o default -F _ec_bash python python3 EC.py
                break
            fi
        done
    fi
    [[ -z $_ec_previous ]] || "$_ec_previous" "$@"
}

_ec_remember() { # stores the function that completed python before
    [[ $(complete -p python 2> /dev/null) =~ \ -F\ ([^ ]+) ]] && [[ ${BASH_REMATCH[1]} != _ec_bash ]] && _ec_previous=${BASH_REMATCH[1]}
}

_ec_previous=${_ec_previous-}
_ec_remember
complete -o bashdefault -o default -F _ec_bash python python3 EC.py
