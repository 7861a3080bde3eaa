#!/bin/sh
# A stand-in for AWS's compiler: it writes an empty NEFF, or fails as its arguments ask.
output=
for argument in "$@"; do
  case "$argument" in
    --stand-in-sleep=*) sleep "${argument#*=}" ;;
    --stand-in-compiler-exit=*) exit "${argument#*=}" ;;
    --stand-in-compiler-killed) kill -9 $$ ;;
  esac
done
while [ $# -gt 0 ]; do
  [ "$1" = --output ] && output=$2
  shift
done
: >"$output"
