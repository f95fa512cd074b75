#!/bin/sh
# Fetch Debian's doc-rfc-* packages (component non-free) and unpack them into a folder for tasks/rfc.py.
# Usage: sh tasks/fetch_rfcs.sh [FOLDER]        FOLDER: data/rfc by default; must not exist or be empty
#
# Nothing is installed, and the machine's apt stays as it is: its sources are copied, with non-free as their component,
# into a temporary folder that also holds the package lists and the downloads.
set -eu

fail() {
    echo "fetch_rfcs: $1" >&2
    exit 1
}

folder=${1:-data/rfc}
[ -z "$(ls -A "$folder" 2>/dev/null)" ] || fail "expected $folder to be empty, found files; name another folder"
grep -qs '^ID=debian$' /etc/os-release && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "the packages are Debian's and this is no Debian; a folder of rfcN.json and rfcN.txt is enough"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$work/sources" "$work/lists/partial" "$work/archives/partial" "$work/packages" "$work/root"
chmod 755 "$work"
chown _apt "$work/packages" 2>/dev/null || true # whom root's apt downloads as
: >"$work/status"

# One-line entries: deb [options] address suite components. Others: Key: value.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -f "$file" ] || sed -En 's/^(deb(\s+\[[^]]*\])?\s+\S+\s+\S+)\s.*/\1 non-free/p' "$file" \
        >"$work/sources/$(basename "$file" .list).list"
done
for file in /etc/apt/sources.list.d/*.sources; do
    [ ! -f "$file" ] || sed -E 's/^Components:.*/Components: non-free/; s/^Types:.*/Types: deb/' "$file" \
        >"$work/sources/$(basename "$file")"
done

# Read after the machine's own settings, a proxy among them. Its hooks would clean the machine's caches.
cat >"$work/apt.conf" <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END

# A source of somebody else's that has no non-free is no failure; that no package is found shows below.
apt-get -c "$work/apt.conf" -qq update || true
# doc-rfc-old-std is left out: what it holds was replaced by RFCs of the other packages, often with the same abstract.
packages=$(apt-cache -c "$work/apt.conf" pkgnames doc-rfc- | grep -v -x doc-rfc-old-std | sort)
[ -n "$packages" ] || fail "found no package doc-rfc-* in non-free; is the machine's Debian mirror within reach?"

echo "downloading $(echo $packages), 420 MB" >&2
(cd "$work/packages" && apt-get -c "$work/apt.conf" -q download $packages) || fail "the download failed"
mkdir -p "$folder"
for package in "$work"/packages/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
find "$work/root" -type f \( -name 'rfc[0-9]*.json' -o -name 'rfc[0-9]*.txt' -o -name 'rfc[0-9]*.txt.gz' \) \
    -exec mv -t "$folder" {} +
cp "$work"/root/usr/share/doc/doc-rfc-std/copyright "$folder"
echo "$folder: $(ls "$folder" | grep -c 'json$') RFCs; whose they are: $folder/copyright" >&2
