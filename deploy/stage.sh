#!/bin/sh
# Lays out the files of an image: the program, and ONNX Runtime's libraries where the program looks for them.
set -eu
if [ $# -ne 3 ]; then
    echo "usage: stage.sh PROGRAM ONNXRUNTIME_FOLDER ROOT" >&2
    exit 2
fi
program=$1 libraries=$2 root=$3
install -D -m 755 "$program" "$root/usr/local/bin/protoseg"
# Keeps function names for backtraces; removes source lines, which are most of the file.
strip --strip-debug "$root/usr/local/bin/protoseg"
install -D -m 644 -t "$root/usr/local/lib" "$libraries"/libonnxruntime*.so
install -D -m 644 -t "$root/usr/share/doc/protoseg" LICENSE-APACHE LICENSE-MIT
