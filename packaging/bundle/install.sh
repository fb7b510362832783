#!/bin/sh
# Installs the archive around this file, or removes an installation. Prints each step; has no other effect.
set -eu

NAME=nomad-driver-containerd
UNIT=$NAME-launcher.service
SOCKET=$NAME-launcher.socket
STATE=/run/$NAME
LINK=/usr/local/bin/containerd-driver
HERE=$(CDPATH='' cd -P -- "$(dirname -- "$0")" && pwd -P)

usage() {
  cat <<TEXT
usage: ./install.sh [--prefix DIR] [--plugin-dir DIR] [--no-systemd]
       ./install.sh --uninstall [--prefix DIR]

Copies this archive to DIR/RELEASE, and makes DIR/current a link to the copy.
With systemd: installs and starts the launcher's units, and installs the kernel settings for bridge
networks. Running tasks go on.

  --prefix DIR      default: /opt/$NAME
  --plugin-dir DIR  link the driver into an agent's plugin_dir, beside other plugins
  --no-systemd      install no units and no kernel settings: the plugin starts a launcher
  --uninstall       remove what an installation has made; running tasks go on
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

# A file with @HOME@ replaced, in a place of the system; uninstalling removes the file.
put() {
  mkdir -p "$(dirname "$2")"
  sed "s,@HOME@,$PREFIX/current,g" "$HERE/system/$1" >"$2.new"
  chmod 644 "$2.new"
  run mv -f "$2.new" "$2"
  record "$2"
}

link() {
  if [ -e "$2" ] && [ ! -L "$2" ]; then die "$2 is a file of another program and stays: remove it first"; fi
  run ln -sfn "$1" "$2"
  record "$2"
}

record() { grep -qxF "$1" "$LIST" 2>/dev/null || echo "$1" >>"$LIST"; }

# Lists the directories of releases from which a process runs.
used() {
  for exe in /proc/[0-9]*/exe; do
    program=$(readlink "$exe" 2>/dev/null) || continue
    case $program in "$PREFIX"/*/python/*) program=${program#"$PREFIX"/} && echo "${program%%/*}" ;; esac
  done
}

install() {
  [ -x "$HERE/python/bin/python3" ] || die "$HERE is no unpacked archive"
  [ ! -e "/usr/lib/$NAME/plugins" ] || die "the Debian package $NAME is installed. Its units and" \
    "the archive's have the same names: apt remove $NAME first. Running tasks go on"
  case $PREFIX/ in "$HERE"/*) die "--prefix must lie outside of $HERE" ;; esac
  release=$("$HERE/plugins/containerd-driver" --version) || die "the driver does not start, see above"
  release=${release#containerd-driver v}
  target=$PREFIX/$release
  case $HERE/ in "$target"/*) die "$target is installed: run the install.sh of another archive" ;; esac

  echo "installing containerd-driver $release in $PREFIX"
  run mkdir -p "$PREFIX"
  rm -rf "$PREFIX/.new"
  echo "  cp -R $HERE $target"
  cp -R "$HERE" "$PREFIX/.new"
  [ ! -e "$target" ] || mv "$target" "$PREFIX/.old"
  mv "$PREFIX/.new" "$target"
  rm -rf "$PREFIX/.old"
  run ln -sfn "$release" "$PREFIX/current"
  if [ -w /usr/local/bin ]; then link "$PREFIX/current/plugins/containerd-driver" "$LINK"; fi
  if [ -n "$PLUGIN_DIR" ]; then
    run mkdir -p "$PLUGIN_DIR"
    link "$PREFIX/current/plugins/containerd-driver" "$PLUGIN_DIR/containerd-driver"
  fi
  [ -z "$SYSTEMD" ] || install_units
  running=" $(used | sort -u | tr '\n' ' ') "
  for other in "$PREFIX"/[0-9]*; do
    case $running in *" ${other##*/} "*) echo "  $other stays: a process runs from there" && continue ;; esac
    [ "$other" = "$target" ] || run rm -rf "$other"
  done
  echo "done. The agent's configuration: plugin_dir = \"${PLUGIN_DIR:-$PREFIX/current/plugins}\""
  echo "Restart the agent, then: $PREFIX/current/plugins/containerd-driver doctor"
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
    run systemctl disable --quiet --now "$SOCKET" "$UNIT"
  fi
  while read -r file; do
    case $(readlink "$file" || true) in
      "" | "$PREFIX"/*) run rm -f "$file" ;;
      *) echo "  $file stays: the link leads to another program" ;;
    esac
  done <"$LIST"
  if [ -n "$units" ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
  run rm -rf "$PREFIX"
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
case $PREFIX in *[!A-Za-z0-9/._-]* | '') die "--prefix may have letters, digits and . _ - alone" ;; esac
[ "$(id -u)" = 0 ] || die "not root: the driver and its launcher belong to root"
umask 022
LIST=$PREFIX/installed
$ACTION
