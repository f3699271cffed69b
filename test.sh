#!/usr/bin/env bash
# Installs what the tests need and runs them: bash test.sh [--all] [pytest's arguments]
#   --all   then the slow tests, one after the other: real servers, kills, outages (up to an hour)
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"
LANGUAGE_FLAG=""
source requirements/install.sh

slow=false
case "${1:-}" in
  --all)
    slow=true
    shift
    ;;
  --help | -h)
    sed -n '2,3s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

# Where Playwright keeps a browser when it has to bring one: with the project, whatever HOME is.
export PLAYWRIGHT_BROWSERS_PATH="${PLAYWRIGHT_BROWSERS_PATH:-$PWD/.venv/browsers}"

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}

apt_install() {
  command -v apt-get >/dev/null 2>&1 || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null
}

has_chromium() {
  "$VENV_PYTHON" tests/chromium.py
}

ensure_chromium() {
  has_chromium 2>/dev/null && return
  say "No Chromium on PATH; asking Playwright for its own …" "PATH 中没有 Chromium，尝试使用 Playwright 自带的 …"
  "$VENV_PYTHON" -m playwright install chromium </dev/null || true
  has_chromium 2>/dev/null && return
  say "Playwright could not bring one that runs; asking apt …" "Playwright 没能提供可用的 Chromium，尝试用 apt 安装 …"
  apt_install chromium || apt_install chromium-browser || true
  has_chromium && return
  die 1 "The browser tests need Chromium, and it could not be installed. Install it so that 'chromium' is on PATH." \
    "浏览器测试需要 Chromium，但无法自动安装。请自行安装，使 chromium 命令位于 PATH 中。"
}

has_chinese_font() {
  [ "$(uname -s)" = Darwin ] || [ -n "$(fc-list :lang=zh 2>/dev/null)" ]
}

ensure_fonts() {
  has_chinese_font && return
  apt_install fontconfig fonts-noto-cjk || true
  has_chinese_font && return
  if [ "${CI:-}" = true ]; then
    die 1 "There is no Chinese font (fc-list :lang=zh is empty). Install fonts-noto-cjk." \
      "系统中没有中文字体（fc-list :lang=zh 为空）。请安装 fonts-noto-cjk。"
  fi
  say "There is no Chinese font, so pictures of pages will show boxes. Install fonts-noto-cjk to mend it." \
    "系统中没有中文字体，页面截图里的中文会显示为方块。请安装 fonts-noto-cjk。"
}

has_java() {
  local told
  told="$(java -version 2>&1)" && [[ "$told" =~ version\ \"([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 17 ]
}

ensure_java() {
  has_java && return
  say "No Java 17 or newer on PATH; asking apt …" "PATH 中没有 Java 17 或更新版本，尝试用 apt 安装 …"
  apt_install default-jre-headless || true
  has_java && return
  # Where the system's own is older, this one stands beside it.
  apt_install openjdk-17-jre-headless || true
  has_java && return
  die 1 "The test on Spark needs Java 17 or newer, and it could not be installed. Install it so that 'java' is on PATH." \
    "Spark 测试需要 Java 17 或更新版本，但无法自动安装。请自行安装，使 java 命令位于 PATH 中。"
}

# Spark, for its one slow test, in a folder of its own: MLflow does other things where it can import pyspark. It is
# published as source alone; what builds it is among the packages of dev.lock, whose hashes are known.
ensure_spark() {
  ensure_java
  install_lock spark requirements/spark.lock --no-build-isolation --upgrade --target .venv/spark
}

summary=""
failed=false

# check NAME COMMAND…: runs it, tells how long it took, goes on after a failure.
check() {
  local name="$1" begin=$SECONDS outcome=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" || {
    outcome=FAILED
    failed=true
  }
  summary="$summary$(printf '%-14s %6s  %5d s' "$name" "$outcome" "$((SECONDS - begin))")
"
}

refuse_plain_windows
ensure_venv
install_lock base requirements/base.lock
install_lock local-lm requirements/local-lm.lock --no-deps
install_lock dev requirements/dev.lock
ensure_chromium
ensure_fonts
if $slow; then
  ensure_spark
  # What a registered model asks for, and nothing else: the test of it runs without the packages of .venv.
  install_lock model requirements/model.lock --upgrade --target .venv/model
fi

# The tools stand in .venv; what they start (a child `python`, `dspyui`) is found there too.
export PATH="$PWD/.venv/bin:$PATH"
check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "import-linter" lint-imports
check "basedpyright" basedpyright
# Two at a time, a file of tests to each; more processes only share the memory and the disk of a small machine.
selection=(-m "not slow" -n 2 --dist loadfile)
# With arguments, what they choose may be slow, or not, or both: --all runs it in one go.
if $slow && [ $# -gt 0 ]; then
  selection=()
fi
check "pytest" python -m pytest ${selection[@]+"${selection[@]}"} "$@"
if $slow && [ $# -eq 0 ]; then
  check "pytest, slow" python -m pytest -m slow
fi

printf '\n%s' "$summary"
if $failed; then
  exit 1
fi
