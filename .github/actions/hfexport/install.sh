#!/usr/bin/env bash
# Write a command `hfexport` that runs the image named in slim/action.yml, and put it on PATH for later steps.
# Before a release that file names a Dockerfile, from which the image is built.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
image=$(sed -n 's|^  image: docker://||p' "$root/slim/action.yml")
if [[ -z "$image" ]]; then
  image=hfexport:local
  docker build --quiet --tag "$image" "$root" >&2
fi

bin=$RUNNER_TEMP/hfexport-bin
mkdir -p "$bin"
{
  printf '#!/usr/bin/env bash\nimage=%q\n' "$image"
  cat <<'COMMAND'
# Variables that hfexport reads are passed on by name, so that no secret is on a command line.
options=()
for name in HF_TOKEN HF_ENDPOINT HF_OIDC_RESOURCE ACTIONS_ID_TOKEN_REQUEST_URL ACTIONS_ID_TOKEN_REQUEST_TOKEN \
  GITHUB_ACTIONS GITHUB_REPOSITORY GITHUB_SHA GITHUB_RUN_ID GITHUB_RUN_ATTEMPT GITHUB_SERVER_URL GITHUB_WORKFLOW_REF \
  GITHUB_OUTPUT GITHUB_STEP_SUMMARY RUNNER_DEBUG; do
  if [[ -n "${!name:-}" ]]; then options+=(--env "$name"); fi
done
for file in "${GITHUB_OUTPUT:-}" "${GITHUB_STEP_SUMMARY:-}"; do
  if [[ -n "$file" ]]; then options+=(--volume "$file:$file"); fi
done
exec docker run --rm --init --volume "$GITHUB_WORKSPACE:/github/workspace" --env "HFEXPORT_IMAGE=$image" \
  "${options[@]}" "$image" "$@"
COMMAND
} > "$bin/hfexport"
chmod +x "$bin/hfexport"
echo "$bin" >> "$GITHUB_PATH"
