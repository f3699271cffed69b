# Installs the locked packages into .venv. Read by webui.sh and test.sh, which run it from the project's folder.
# Bash 3.2 (macOS) is enough for all of it.

# What a person has set for other projects must not steer this one.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
unset PIP_REQUIRE_VIRTUALENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_HASHES PIP_NO_DEPS
unset UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_REQUIRE_HASHES UV_PYTHON

VENV_PYTHON=.venv/bin/python

# say ENGLISH CHINESE: prints one of the two, in the language of --lang, DSPYUI_LANGUAGE or the terminal.
say() {
  local language="${LANGUAGE_FLAG:-${DSPYUI_LANGUAGE:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}}}"
  case "$language" in
    zh* | ZH* | Zh*) printf '%s\n' "$2" ;;
    *) printf '%s\n' "$1" ;;
  esac
}

# die CODE ENGLISH CHINESE: the sentence on stderr, and the exit code.
die() {
  say "$2" "$3" >&2
  exit "$1"
}

refuse_plain_windows() {
  case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN* | Windows*)
      die 1 "DSPyUI does not run on plain Windows. Install WSL (wsl --install) and start it from there." \
        "DSPyUI 不能直接在 Windows 上运行。请安装 WSL（wsl --install），在 WSL 中启动。"
      ;;
  esac
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the command of a Python that is new enough, or nothing.
find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3.14 python3 python; do
    if command -v "$name" >/dev/null 2>&1 && is_new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
}

has_uv() {
  command -v uv >/dev/null 2>&1
}

make_venv() {
  local python
  python="$(find_python)"
  rm -rf .venv
  if has_uv; then
    # Without a Python of its own, uv finds or fetches one.
    uv venv --quiet --python "${python:-3.11}" .venv </dev/null && return
    die 1 "uv could not make .venv. Its message stands above." "uv 未能创建 .venv，原因见上方信息。"
  fi
  if [ -z "$python" ]; then
    die 1 "DSPyUI needs Python 3.11 or newer, and none was found (found: $(python3 -V 2>&1 || true)). Install one, or install uv, which brings its own." \
      "DSPyUI 需要 Python 3.11 或更新版本，但没有找到（当前：$(python3 -V 2>&1 || true)）。请安装新版 Python，或安装自带 Python 的 uv。"
  fi
  "$python" -m venv .venv </dev/null && return
  rm -rf .venv
  die 1 "$python could not make .venv. On Debian and Ubuntu, install the package python3-venv; or install uv." \
    "$python 未能创建 .venv。在 Debian 和 Ubuntu 上请安装 python3-venv，或安装 uv。"
}

# What an installation depends on. The folder is part of it: the project is installed by its path.
stamp_of() {
  printf '%s %s ' "$PWD" "$("$VENV_PYTHON" -V 2>&1)"
  cat pyproject.toml "$@" | cksum
}

is_installed() { # NAME LOCK…
  local stamp=".venv/dspyui-$1.stamp"
  shift
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(stamp_of "$@")" ]
}

pip_install() {
  if has_uv; then
    uv pip install --python "$VENV_PYTHON" "$@" </dev/null
  else
    # A .venv that uv made has no pip.
    "$VENV_PYTHON" -m pip --version >/dev/null 2>&1 || "$VENV_PYTHON" -m ensurepip --upgrade </dev/null
    "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check "$@" </dev/null
  fi
}

# install NAME LOCK pip-options…: installs a lock file unless its stamp says that it is there. The stamp is
# written last, so an installation that was interrupted is done again.
install_lock() {
  local name="$1" lock="$2"
  shift 2
  is_installed "$name" "$lock" && return
  rm -f ".venv/dspyui-$name.stamp"
  say "Installing $lock …" "正在安装 $lock …" >&2
  if ! pip_install --require-hashes "$@" -r "$lock"; then
    case "$name" in
      local-lm)
        die 1 "The bundled language model could not be installed; the reason stands above. To go on without it: --no-local-lm" \
          "内置语言模型安装失败，原因见上方信息。如需跳过，请加 --no-local-lm" ;;
      *)
        die 1 "$lock could not be installed; the reason stands above. Check the network and the disk, then run the same command again." \
          "$lock 安装失败，原因见上方信息。请检查网络和磁盘，然后重新运行同一命令。" ;;
    esac
  fi
  if [ "$name" = base ]; then
    pip_install --quiet --no-deps --no-build-isolation -e . ||
      die 1 "DSPyUI itself could not be installed; the reason stands above." "DSPyUI 自身安装失败，原因见上方信息。"
  fi
  stamp_of "$lock" >".venv/dspyui-$name.stamp"
}

ensure_venv() {
  { [ -x "$VENV_PYTHON" ] && is_new_enough "$VENV_PYTHON"; } || make_venv
}
