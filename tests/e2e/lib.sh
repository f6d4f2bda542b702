# What every shell test includes: one line a test in cmocka's words, a folder that goes away, assertions.
# Tests are functions; each runs in its own subshell with `set -e`, from the repository root.
#   QDYNO   the program (build/qdyno)      BUILD   its build folder, for tests/e2e/json
# shellcheck shell=sh
set -u

QDYNO=${QDYNO:-build/qdyno}
BUILD=${BUILD:-build/release}
JSON=$BUILD/tests/e2e/json
TINY=models/tiny
GOLDENS=tests/data/goldens/models
TMP=$(mktemp -d)
OUT=$TMP/stdout ERR=$TMP/stderr
: >"$OUT" 2>"$ERR"
trap 'rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM
failures=0

# check NAME: runs the function of that name.
check() {
    (
        background=
        trap '[ -z "$background" ] || kill -KILL "$background" 2>/dev/null' EXIT
        set -e
        "$1"
    ) >"$TMP/log" 2>&1
    case $? in
    0) echo "[       OK ] $1" ;;
    77)
        echo "[  SKIPPED ] $1"
        sed -n "s/^skip: /skip: $1: /p" "$TMP/log"
        ;;
    *)
        echo "[  FAILED  ] $1"
        sed 's/^/    /' "$TMP/log"
        failures=$((failures + 1))
        ;;
    esac
}

# The last line of every file.
finish() {
    [ "$failures" -eq 0 ]
    exit
}

skip() {
    echo "skip: $*"
    exit 77
}

fail() {
    echo "$*"
    echo "standard output:"
    tail -n 20 "$OUT"
    echo "standard error:"
    tail -n 20 "$ERR"
    exit 1
}

# exits CODE COMMAND...: runs it, keeps what it prints in $OUT and $ERR, fails unless it ends with CODE.
exits() {
    expected=$1
    shift
    status=0
    "$@" >"$OUT" 2>"$ERR" || status=$?
    [ "$status" -eq "$expected" ] || fail "exit $status instead of $expected: $*"
}

# refuses CODE TEXT COMMAND...: exit CODE, nothing on standard output, TEXT on standard error, and not as a crash.
refuses() {
    code=$1 text=$2
    shift 2
    exits "$code" "$@"
    [ ! -s "$OUT" ] || fail "something on standard output: $*"
    err_has "$text"
}

out_has() { grep -qF -e "$1" "$OUT" || fail "no \"$1\" on standard output"; }
err_has() { grep -qF -e "$1" "$ERR" || fail "no \"$1\" on standard error"; }
out_lacks() { ! grep -qF -e "$1" "$OUT" || fail "\"$1\" on standard output"; }

# equal EXPECTED ACTUAL
equal() { [ "$1" = "$2" ] || fail "expected \"$1\", got \"$2\""; }

# start COMMAND...: in the background as $background, which does not outlive the test; output as in exits.
start() {
    "$@" >"$OUT" 2>"$ERR" &
    background=$!
}

# ends CODE: waits for what was started.
ends() {
    status=0
    wait "$background" || status=$?
    background=
    [ "$status" -eq "$1" ] || fail "exit $status instead of $1"
}

# same FILE FILE
same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    tries=$(($1 * 20))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}
