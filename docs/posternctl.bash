# bash completion for posternctl; made by posternctl --completion
_posternctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} command='' i word words=''
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -s | --socket) ((i++)) ;;
        -*) ;;
        *) command=$word && break ;;
        esac
    done
    case ${COMP_WORDS[COMP_CWORD - 1]} in
    -s | --socket)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac
    if [[ -z $command ]]; then
        words="status top lookup forget blocks block unblock explain remote-domains directory downstreams reload drain log-level --socket --json --help --version"
    elif ((i == COMP_CWORD - 1)); then
        case $command in
        blocks) words="list" ;;
        directory) words="status sync duplicates" ;;
        log-level) words="error warning notice info debug" ;;
        esac
    elif [[ $command == directory && ${COMP_WORDS[COMP_CWORD - 1]} == sync ]]; then
        words=--force
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _posternctl posternctl
