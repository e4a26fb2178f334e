
_ec_bash() {
    local -a words=()
    local place before="" word start=-1
    for ((place = 0; place <= COMP_CWORD; place++)); do # bash takes = and : for words of their own
        word=${COMP_WORDS[place]}
        if ((${#words[@]})) && [[ $word == [=:] || $before == [=:] ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        before=$word
    done
    for place in "${!words[@]}"; do
        [[ ${words[place]} != EC.py && ${words[place]} != */EC.py ]] || { start=$((place + 1)) && break; }
    done
    if ((start < 0 || start >= ${#words[@]})); then
        _ec_bash_otherwise "$@"
        return
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(_ec_candidates "${words[@]:start}")
    [[ ${COMPREPLY[*]-} != */ ]] || compopt -o nospace 2> /dev/null
}

_ec_bash_otherwise() { # as if this were not here
    local loader
    if [[ -z $_ec_before ]]; then
        for loader in _comp_load _completion_loader; do
            if declare -F "$loader" > /dev/null; then
                "$loader" python > /dev/null 2>&1
                _ec_remember
                complete -o bashdefault -o default -F _ec_bash python python3 EC.py
                break
            fi
        done
    fi
    [[ -z $_ec_before ]] || "$_ec_before" "$@"
}

_ec_remember() { # the function that completes python without this
    [[ $(complete -p python 2> /dev/null) =~ \ -F\ ([^ ]+) ]] && [[ ${BASH_REMATCH[1]} != _ec_bash ]] && _ec_before=${BASH_REMATCH[1]}
}

_ec_before=${_ec_before-}
_ec_remember
complete -o bashdefault -o default -F _ec_bash python python3 EC.py
