# Sourced by the scripts beside it; not a command of its own.
KVTC_VENV=${KVTC_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/kvtc/venv}

# A virtual environment for each engine, whose releases of torch and the like exclude each other.
KVTC_ENGINES=${KVTC_ENGINES:-$(dirname "$KVTC_VENV")/engines}

# One line of progress on standard error, so that standard output stays free for results.
say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# The Debian packages whose English prose and code the demo calibrates on and is evaluated with.
demo_packages() { echo debian-faq debian-policy debian-reference-en developers-reference maint-guide; }

need_swift() {
    command -v swift >/dev/null ||
        die "no 'swift' on PATH: install Swift 6.3 (https://www.swift.org/install/linux), then run this again"
    case "$(swift --version 2>&1)" in
    *"Swift version 6."[3-9]*) ;;
    *) die "Swift 6.3 or newer is needed; 'swift --version' says: $(swift --version 2>&1 | head -1)" ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (run as root, or install sudo)"
    fi
}

# The Swift runtime is linked in, so that the binaries run where no toolchain is.
build_release() {
    say "building kvtcd, kvtcctl and libkvtc (release)"
    swift build -c release --static-swift-stdlib --product kvtcd
    swift build -c release --static-swift-stdlib --product kvtcctl
    swift build -c release --static-swift-stdlib --product kvtc
    KVTCD=$PWD/.build/release/kvtcd
    KVTCCTL=$PWD/.build/release/kvtcctl
    KVTC_LIBRARY=$PWD/.build/release/libkvtc.so
    export KVTCD KVTCCTL KVTC_LIBRARY
}
