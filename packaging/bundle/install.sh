#!/bin/sh
# Installs the archive around this file, or removes an installation. Prints each step; has no other effect.
set -eu

NAME=nomad-driver-containerd
UNIT=$NAME-launcher.service
SOCKET=$NAME-launcher.socket
STATE=/run/$NAME
SETTINGS='/etc/systemd/system /etc/modules-load.d /etc/sysctl.d'
HERE=$(CDPATH='' cd -P -- "$(dirname -- "$0")" && pwd -P)

usage() {
  cat <<TEXT
usage: ./install.sh [--prefix DIR] [--plugin-dir DIR] [--no-systemd]
       ./install.sh --uninstall [--prefix DIR]

Copies this archive to DIR/RELEASE, and makes DIR/current a link to the copy.
With systemd: installs and starts the launcher's units, and installs the kernel settings for bridge
networks. With SELinux: labels DIR. Running tasks go on.

  --prefix DIR      a directory for the driver alone; default: /opt/$NAME
  --plugin-dir DIR  link the driver into an agent's plugin_dir, beside other plugins
  --no-systemd      install no units and no kernel settings: the plugin starts a launcher
  --uninstall       remove what an installation has made; running tasks go on

From a file system that is mounted noexec: sh install.sh
TEXT
}

die() {
  echo "install.sh: $*" >&2
  exit 1
}

# Prints a command and runs the command.
run() {
  echo "  $*"
  "$@"
}

# Follows links to the prefix: the kernel names the programs of processes without links.
resolve() {
  [ ! -d "$PREFIX" ] || PREFIX=$(CDPATH='' cd -P -- "$PREFIX" && pwd -P)
  case $PREFIX in *[!A-Za-z0-9/._-]* | '' | /) die "--prefix may have letters, digits and . _ - alone" ;; esac
  LIST=$PREFIX/installed
}

# Returns whether a directory can be written, or made.
writable() {
  place=$1
  while [ ! -e "$place" ]; do place=$(dirname "$place"); done
  [ -w "$place" ]
}

# A file with @HOME@ replaced, in a place of the system; uninstalling removes the file.
put() {
  mkdir -p "$(dirname "$2")"
  sed "s,@HOME@,$PREFIX/current,g" "$HERE/system/$1" >"$2.new"
  chmod 644 "$2.new"
  run mv -f "$2.new" "$2"
  record file "$2"
}

link() {
  run ln -sfn "$PREFIX/current/plugins/containerd-driver" "$1"
  record link "$1"
}

record() { grep -qxF "$1 $2" "$LIST" || echo "$1 $2" >>"$LIST"; }

recorded() { sed -n "s/^$1 //p" "$LIST"; }

# Lists the directories of releases from which a process runs.
used() {
  for exe in /proc/[0-9]*/exe; do
    program=$(readlink "$exe" 2>/dev/null) || continue
    case $program in "$PREFIX"/*/python/*) program=${program#"$PREFIX"/} && echo "${program%%/*}" ;; esac
  done
}

# Names each obstacle before the first change.
check() {
  [ -e "$HERE/python/loader/containerd-driver" ] || die "$HERE is no unpacked archive"
  [ ! -e "/usr/lib/$NAME/plugins" ] || die "the Debian package $NAME is installed. Its units and" \
    "the archive's have the same names: apt remove $NAME first. Running tasks go on"
  case $PREFIX/ in "$HERE"/*) die "--prefix must lie outside of $HERE" ;; esac
  case $HERE/ in "$PREFIX"/*) die "$HERE is installed: run the install.sh of another archive" ;; esac
  [ -e "$LIST" ] || [ -z "$(ls -A "$PREFIX" 2>/dev/null)" ] || die "$PREFIX has files of other programs." \
    "--prefix names a directory for the driver alone, such as $PREFIX/$NAME"
  writable "$PREFIX" || die "cannot write $PREFIX: --prefix names another place"
  # The first place is on the PATH of most systems, the second on that of Flatcar, whose /usr is read-only.
  for BIN in /usr/local/bin /opt/bin ''; do [ ! -w "$BIN" ] || break; done
  for directory in ${BIN:+"$BIN"} ${PLUGIN_DIR:+"$PLUGIN_DIR"}; do
    writable "$directory" || die "cannot write $directory: --plugin-dir names another place"
    program=$directory/containerd-driver
    case $([ ! -e "$program" ] || readlink -- "$program" || echo file) in
      '' | "$PREFIX"/*) ;;
      *) die "$program belongs to another program and stays: remove it first" ;;
    esac
  done
  for directory in ${SYSTEMD:+$SETTINGS}; do
    writable "$directory" || die "cannot write $directory. With --no-systemd the plugin starts a launcher"
  done
}

install() {
  check
  release=$(sed -n 's/^RELEASE = "\(.*\)"$/\1/p' "$HERE/driver/proto/release.py")
  echo "installing containerd-driver $release in $PREFIX"
  run mkdir -p "$PREFIX"
  resolve
  : >>"$LIST"
  record release "$release"
  copy "$PREFIX/$release"
  run ln -sfn "$release" "$PREFIX/current"
  # The policy names other labels for programs and libraries than a copy inherits.
  if [ -e /sys/fs/selinux/enforce ] && command -v restorecon >/dev/null; then
    run restorecon -R "$PREFIX" || true
  fi
  if [ -n "$BIN" ]; then
    link "$BIN/containerd-driver"
  else
    echo "  no link: neither /usr/local/bin nor /opt/bin can be written"
  fi
  if [ -n "$PLUGIN_DIR" ]; then
    run mkdir -p "$PLUGIN_DIR"
    link "$PLUGIN_DIR/containerd-driver"
  fi
  [ -z "$SYSTEMD" ] || install_units
  running=" $(used | sort -u | tr '\n' ' ') "
  for other in $(recorded release); do
    [ "$other" != "$release" ] && [ -e "$PREFIX/$other" ] || continue
    case $running in
      *" $other "*) echo "  $PREFIX/$other stays: a process runs from there" ;;
      *) run rm -rf "${PREFIX:?}/$other" ;;
    esac
  done
  echo "done. The agent's configuration: plugin_dir = \"${PLUGIN_DIR:-$PREFIX/current/plugins}\""
  echo "Restart the agent, then: $PREFIX/current/plugins/containerd-driver doctor"
}

# Copies the archive to the directory of its release, once the driver starts from there.
copy() {
  new=$PREFIX/.new
  rm -rf "$new"
  echo "  cp -R $HERE $1"
  cp -R "$HERE" "$new"
  # Another user than root may have unpacked the archive, with any umask.
  chmod -R u=rwX,go=rX "$new"
  if ! "$new/plugins/containerd-driver" --version >/dev/null; then
    rm -rf "$new"
    [ -e "$PREFIX/current" ] || { rm -f "$LIST" && rmdir "$PREFIX"; }
    die "the driver does not start in $PREFIX, see above. If the file system is mounted noexec," \
      "--prefix names another place"
  fi
  [ ! -e "$1" ] || mv "$1" "$PREFIX/.old"
  mv "$new" "$1"
  rm -rf "$PREFIX/.old"
}

install_units() {
  put "$UNIT" "/etc/systemd/system/$UNIT"
  put "$SOCKET" "/etc/systemd/system/$SOCKET"
  put containerd_driver.slice /etc/systemd/system/containerd_driver.slice
  put modules-load.conf "/etc/modules-load.d/$NAME.conf"
  put sysctl.conf "/etc/sysctl.d/50-$NAME.conf"
  run systemctl daemon-reload
  run systemctl enable --quiet "$UNIT" "$SOCKET"
  run systemctl start "$SOCKET" || true
  run systemctl restart "$UNIT"
  echo "  kernel modules and sysctls are set at the next boot; at once by:"
  echo "    systemctl restart systemd-modules-load systemd-sysctl"
}

uninstall() {
  [ -e "$LIST" ] || die "no installation in $PREFIX: $LIST is missing. --prefix names another place"
  echo "removing containerd-driver from $PREFIX"
  units=
  ! grep -qF "/$UNIT" "$LIST" || units=yes
  if [ -n "$units" ] && [ -d /run/systemd/system ]; then
    run systemctl disable --quiet --now "$SOCKET" "$UNIT" || true
  fi
  recorded file | while read -r file; do run rm -f "$file"; done
  recorded link | while read -r link; do
    case $(readlink "$link" || true) in
      "$PREFIX"/*) run rm -f "$link" ;;
      *) [ ! -e "$link" ] || echo "  $link stays: another program has replaced the link" ;;
    esac
  done
  if [ -n "$units" ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
  for release in .new .old $(recorded release); do
    [ ! -e "$PREFIX/$release" ] || run rm -rf "${PREFIX:?}/$release"
  done
  run rm -f "$PREFIX/current" "$LIST"
  run rmdir "$PREFIX" || echo "  $PREFIX stays: the directory has other files"
  if [ -d "$STATE" ]; then
    if [ -d "$STATE/tasks" ] && ! rmdir "$STATE/tasks" 2>/dev/null; then
      echo "  tasks still run, so $STATE stays until the next reboot"
    else
      run rm -rf "$STATE"
    fi
  fi
  echo "done. Restart the agent: an agent whose plugin_dir is gone does not start"
}

PREFIX=/opt/$NAME PLUGIN_DIR='' ACTION=install SYSTEMD=''
[ ! -d /run/systemd/system ] || SYSTEMD=yes
while [ $# -gt 0 ]; do
  case $1 in
    --prefix | --plugin-dir)
      case ${2-} in /*) ;; *) die "$1 wants an absolute path" ;; esac
      if [ "$1" = --prefix ]; then PREFIX=${2%/}; else PLUGIN_DIR=${2%/}; fi
      shift
      ;;
    --no-systemd) SYSTEMD='' ;;
    --uninstall) ACTION=uninstall ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
[ "$(id -u)" = 0 ] || die "not root: the driver and its launcher belong to root"
umask 022
resolve
$ACTION
