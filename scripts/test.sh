#!/usr/bin/env bash
# All tests: Rust first, then Python over the real port with the binary that the Rust tests built.
# The last line is the total, `N passed, N failed`; the exit code says the same.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target"
log="$target/cargo-test.log"
xml="$target/pytest.xml"
rm -f "$xml"
passed=0
failed=0
skipped=0

cargo test --locked --no-fail-fast 2>&1 | tee "$log"
rust=${PIPESTATUS[0]}
read -r rust_passed rust_failed rust_ignored < <(awk '
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") ignored += $(i - 1)
        }
    }
    END { print passed + 0, failed + 0, ignored + 0 }' "$log")
passed=$((passed + rust_passed))
failed=$((failed + rust_failed))
skipped=$((skipped + rust_ignored))
# What did not compile, or died, counted nothing.
[ "$rust" -eq 0 ] || [ "$rust_failed" -gt 0 ] || failed=$((failed + 1))

VOISIN_BIN="$(realpath -m "$target")/debug/voisin"
export VOISIN_BIN
.venv/bin/python -m pytest tests --junitxml="$xml"
python=$?
read -r python_passed python_failed python_skipped < <(.venv/bin/python - "$xml" <<'PYTHON'
import sys
import xml.etree.ElementTree as tree

try:
    suites = list(tree.parse(sys.argv[1]).getroot().iter("testsuite"))
except (OSError, tree.ParseError):
    suites = []
count = lambda name: sum(int(suite.get(name, 0)) for suite in suites)
bad, skipped = count("failures") + count("errors"), count("skipped")
print(count("tests") - bad - skipped, bad, skipped)
PYTHON
)
passed=$((passed + ${python_passed:-0}))
failed=$((failed + ${python_failed:-0}))
skipped=$((skipped + ${python_skipped:-0}))
# No tests found (5) and a crash count as a failure too.
[ "$python" -eq 0 ] || [ "${python_failed:-0}" -gt 0 ] || failed=$((failed + 1))

echo
[ "$skipped" -eq 0 ] || echo "not run: $skipped skipped or ignored, named above"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
