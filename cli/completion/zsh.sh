
_ec_zsh() {
    local start=${words[(I)(*/|)EC.py]}
    if ((start == 0 || start >= CURRENT)); then
        if ((_ec_python)); then _python "$@"; else _default "$@"; fi
        return
    fi
    local -a candidates
    candidates=("${(@f)$(_ec_candidates "${(@)words[start + 1, CURRENT - 1]}" "$PREFIX")}")
    compset -P '--[^=]#='
    compadd -- ${candidates:#}
}

whence compdef > /dev/null || { autoload -Uz compinit && compinit }
autoload +XUz _python 2> /dev/null
_ec_python=$?
_ec_python=$((!_ec_python))
compdef _ec_zsh python python3 EC.py
