#!/usr/bin/env bash
# Installs DSPyUI into .venv when that is needed, and starts it. `bash webui.sh --help` tells the flags.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'HELP'
Usage: bash webui.sh [flags]
  --lang zh_CN|en_US   language of the program (otherwise each visitor's own)
  --mlflow             start the local MLflow server, whatever MLFLOW_TRACKING_URI says
  --host ADDRESS       address to listen on (127.0.0.1); any other needs DSPYUI_AUTH
  --port PORT          port to listen on (7860)
  --no-local-lm        neither install nor start the bundled language model
  --insecure           allow an address other than loopback without DSPYUI_AUTH
  --setup-only         install, and start nothing
  --help               show this help
Settings are read from the environment and from .env; docs/settings.md lists them.

用法：bash webui.sh [选项]
  --lang zh_CN|en_US   界面语言（默认按每位访问者的语言）
  --mlflow             启动本地 MLflow 服务器，忽略 MLFLOW_TRACKING_URI
  --host ADDRESS       监听地址（127.0.0.1）；其他地址需要设置 DSPYUI_AUTH
  --port PORT          监听端口（7860）
  --no-local-lm        不安装也不启动内置语言模型
  --insecure           允许在没有 DSPYUI_AUTH 的情况下监听本机以外的地址
  --setup-only         只安装，不启动
  --help               显示本帮助
设置从环境变量和 .env 读取，清单见 docs/settings.md。
HELP
}

LANGUAGE_FLAG=""
source requirements/install.sh

with_local_lm=true
setup_only=false
flags=()

while [ $# -gt 0 ]; do
  case "$1" in
    --lang=* | --host=* | --port=*)
      name="${1%%=*}"
      value="${1#*=}"
      shift
      set -- "$name" "$value" "$@"
      continue
      ;;
    --lang | --host | --port)
      [ $# -gt 1 ] || die 2 "$1 needs a value. bash webui.sh --help lists the flags." \
        "$1 需要一个值。可用选项见 bash webui.sh --help。"
      case "$1:$2" in
        --lang:zh_CN | --lang:en_US) LANGUAGE_FLAG="$2" ;;
        --lang:*) die 2 "--lang takes zh_CN or en_US, not $2." "--lang 只能是 zh_CN 或 en_US，不能是 $2。" ;;
        --port:*[!0-9]* | --port:) die 2 "--port takes a number, not $2." "--port 需要数字，不能是 $2。" ;;
      esac
      flags+=("$1" "$2")
      shift 2
      continue
      ;;
    --no-local-lm)
      with_local_lm=false
      flags+=("$1")
      ;;
    --mlflow | --insecure) flags+=("$1") ;;
    --setup-only) setup_only=true ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      die 2 "There is no flag $1. bash webui.sh --help lists the flags." "没有选项 $1。可用选项见 bash webui.sh --help。"
      ;;
  esac
  shift
done

refuse_plain_windows
ensure_venv
install_lock base requirements/base.lock
if $with_local_lm; then
  install_lock local-lm requirements/local-lm.lock --no-deps
fi
if $setup_only; then
  say "Installed. Start it with: bash webui.sh" "安装完成。启动命令：bash webui.sh"
  exit 0
fi
# exec: a signal to this process reaches the program itself, which stops its own children. (Bash 3.2 takes an
# empty array for an unset one.)
exec "$VENV_PYTHON" -m dspyui ui ${flags[@]+"${flags[@]}"}
