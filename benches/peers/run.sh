#!/bin/sh
# Makes the peers' environment once, builds sphereface, runs all of them in turns and prints the
# tables of BENCHMARKS.md.
#
#     benches/peers/run.sh VIDEO STILLS [TRUTH.json]
# VIDEO shows the people in STILLS, which has one folder per person. Needs Python 3.11 or later. PEERS is the
# folder of the environment (several GB, most of it PyTorch), ROUNDS the number of turns of each part.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 VIDEO STILLS [TRUTH.json]" >&2; exit 2; }
video=$(realpath "$1") stills=$(realpath "$2") truth=${3:+$(realpath "$3")}
here=$(cd "$(dirname "$0")" && pwd)
peers=${PEERS:-$here/../../target/peers}
if [ ! -e "$peers/complete" ]; then
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet -r "$here/requirements.txt"
    # These two require versions of the others that cannot be installed together any more.
    "$peers/bin/pip" install --quiet --no-deps -r "$here/requirements-alone.txt"
    touch "$peers/complete"
fi
(cd "$here/../.." && cargo build --release)
program=$(realpath "$here/../../target/release/sphereface")
python=$(cd "$peers/bin" && pwd)/python
cd "$here"
turns=${ROUNDS:+--rounds $ROUNDS}
# shellcheck disable=SC2086 # two words or none
for threads in 1 2; do
    "$python" embed.py "$program" --threads $threads $turns
    "$python" embed.py "$program" --threads $threads --precision auto $turns
    "$python" detect.py "$program" "$video" --threads $threads $turns
done
"$python" train.py "$program" $turns
"$python" whole.py "$program" "$video" "$stills" ${truth:+--truth "$truth"} $turns
"$python" whole.py "$program" "$video" "$stills" --wide $turns
"$program" bench --video "$video"
