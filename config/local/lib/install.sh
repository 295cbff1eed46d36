# shellcheck shell=bash
# Installs several packages side by side and shows how far each is. Sourced by `services`.
# On a terminal each package has a line that is redrawn; elsewhere, or when a build is drawing on the same
# terminal (ALBERTINE_PROGRESS=plain), a line is printed when one is there.

install_log() { printf '%s/install-%s.log' "$LOGS" "$1"; }

# install_job PACKAGE: one package, with its time left beside its log for the line that reports it
install_job() {
  local began
  began="$(now_ms)"
  install_package "$1" "$(folder_of "$1")" >"$(install_log "$1")" 2>&1
  seconds_since "$began" >"$(install_log "$1").time"
}

# install_all PACKAGE…: returns when all are there; those that are cost nothing, and each may be named twice
install_all() {
  local package missing=() pids=()
  for package in "$@"; do
    [[ -d "$(folder_of "$package")" || " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  for package in "${missing[@]}"; do
    rm -f "$(install_log "$package").time"
    install_job "$package" &
    pids+=($!)
  done
  if [[ -t 1 && "${ALBERTINE_PROGRESS:-}" != plain ]]; then
    draw_installs "${missing[@]}"
  fi
  report_installs
}

# report_installs: waits for each job in turn (missing and pids are the caller's)
report_installs() {
  local i
  for i in "${!missing[@]}"; do
    wait "${pids[i]}" || fail "installing ${missing[i]}" "$(install_log "${missing[i]}")" \
      "check the network and try again, or put the file of packages.lock into $DOWNLOADS by hand"
    done_line "${missing[i]}" "$(install_summary "${missing[i]}")"
  done
}

install_summary() {
  printf '%s, %s verified and unpacked in %s' "$(package_version "$1")" "$(megabytes "$(package_bytes "$1")")" \
    "$(<"$(install_log "$1").time")"
}

# draw_installs PACKAGE…: redraws a line for each until none is left, then clears them
draw_installs() {
  local package
  while [[ -n "$(jobs -rp)" ]]; do
    for package in "$@"; do draw_install "$package"; done
    sleep 0.2
    printf '\e[%dA' $#
  done
  printf '\e[J'
}

draw_install() {
  local total have
  total="$(package_bytes "$1")"
  have="$(downloaded_bytes "$1")"
  if [[ -e "$(install_log "$1").time" ]]; then
    printf '\e[K  %-12s ready\n' "$1"
  elif ((have < total)); then
    printf '\e[K  %-12s %3d%% of %s\n' "$1" $((have * 100 / total)) "$(megabytes "$total")"
  else
    printf '\e[K  %-12s unpacking\n' "$1"
  fi
}
