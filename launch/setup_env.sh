# Sourced by the other scripts: makes .venv beside them and installs moejax with the extras named in $1, once per change of setup.py.
# PYTHON chooses the interpreter (default: python3, 3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "moejax needs Python 3.11 or newer; set PYTHON" >&2; exit 1; }
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
want="$(cat setup.py pyproject.toml | sha256sum | cut -c1-16)"
for extra in ${1//,/ }; do
  stamp=".venv/.moejax-$extra-$want"
  if [ ! -f "$stamp" ]; then
    echo "installing moejax[$extra] into .venv ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extra]"
    touch "$stamp"
  fi
done
