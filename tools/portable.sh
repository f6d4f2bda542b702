#!/bin/sh
# Packs the program and what a first run on a GPU machine needs into one archive, FOLDER/qdyno-portable-VERSION.tar.xz.
# Its folders are those of a checkout, so that every command of README.md holds in it. `make portable` calls this.
#   tools/portable.sh BINARY FOLDER [CUDA_OBJECT CUDA_ROOT "80 86 89 90"]
# Exit 3 where this machine cannot make one: a library's licence is not found, or what was built here needs a newer C
# library than GLIBC below.
set -eu

GLIBC=2.34                  # Debian 12, Ubuntu 22.04, RHEL 9 and newer
MAX_BYTES=$((48 << 20))     # unpacked
binary=$1 folder=$2 cuda=${3:-} cuda_root=${4:-} cuda_archs=${5:-}

die() {
    echo "portable: $*" >&2
    exit 3
}

# The shared libraries that FILE names and no C library brings.
foreign_libraries() {
    objdump -p "$1" | awk '$1 == "NEEDED" && $2 !~ /^(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so/ { print $2 }'
}

newest_glibc() {
    objdump -T "$1" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -Vu | tail -n 1
}

# The libraries of the binary and their licences, from the distribution's packages.
take_libraries() {
    for library in $(foreign_libraries "$binary"); do
        file=$(ldd "$binary" | awk -v name="$library" '$1 == name { print $3 }')
        [ -n "$file" ] || die "$library is not found"
        cp -L "$file" "$root/build/lib/$library"
        # dpkg may know the file by its path before or after /lib became /usr/lib.
        package=$(dpkg -S "$(realpath "$file")" 2>/dev/null || dpkg -S "$(realpath "$file" | sed 's|^/usr||')" 2>/dev/null) ||
            die "no package of dpkg's owns $file, so its licence is not known"
        package=${package%%:*}
        cp "/usr/share/doc/$package/copyright" "$root/licenses/$package.txt" || die "no licence of $package"
    done
}

# NVIDIA's licence allows to pass on the CUDA runtime, which the object contains.
take_cuda() {
    cp "$cuda" "$root/build/libqdyno_cuda.so"
    for licence in "$cuda_root/EULA.txt" "$cuda_root"/dist-info/nvidia_cuda_runtime-*/licenses/License.txt \
        "$cuda_root"/share/doc/nvidia-cuda-toolkit/copyright; do
        [ -e "$licence" ] || continue
        cp "$licence" "$root/licenses/cuda-runtime.txt"
        return
    done
    die "no licence of the CUDA runtime in $cuda_root (EULA.txt)"
}

take_data() {
    cp README.md LICENSE "$root/"
    cp tools/gpu-first-run.sh "$root/tools/"
    cp -R models/tiny "$root/models/"
    mkdir -p "$root/tests/data"
    cp -R tests/data/goldens "$root/tests/data/"
    for file in bench/*.md bench/baselines bench/machines; do cp -R "$file" "$root/bench/"; done
}

# What is inside, for whoever gets it: build/CONTENTS.txt.
describe() {
    "$binary" --version | head -n 1
    if [ -n "$cuda" ]; then
        echo "device cuda: built with CUDA $("$cuda_root/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" \
            "for sm_$(echo "$cuda_archs" | sed 's/ /, sm_/g'), and PTX for newer GPUs"
    else
        echo "device cuda: none: this archive was built without nvcc"
    fi
    newest=$(for file in "$root"/build/qdyno "$root"/build/*.so "$root"/build/lib/*; do
        [ -e "$file" ] && newest_glibc "$file"
    done | sort -V | tail -n 1)
    echo "C library: glibc $newest or newer"
    [ "$(printf '%s\n' "$newest" "$GLIBC" | sort -V | tail -n 1)" = "$GLIBC" ] ||
        die "what was built here needs glibc $newest, and $GLIBC is the newest allowed: build on an older distribution"
}

version=$("$binary" --version | sed -n '1s/^qdyno \([^,]*\),.*/\1/p')
name=qdyno-portable-$version
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root/build/lib" "$root/models" "$root/bench" "$root/tools" "$root/licenses"

cp -L "$binary" "$root/build/qdyno"
take_libraries
[ -z "$cuda" ] || take_cuda
take_data
find "$root/build" -type f -exec strip --strip-unneeded {} +
describe >"$root/build/CONTENTS.txt"
cat "$root/build/CONTENTS.txt"

chmod -R u+rwX,go+rX,go-w "$root"
size=$(find "$root" -type f -exec stat -c %s {} + | awk '{ sum += $1 } END { print sum }')
[ "$size" -lt "$MAX_BYTES" ] || die "$size bytes unpacked: $MAX_BYTES are too many"
mkdir -p "$folder"
# Owner, order and time are fixed: the same inputs make the same archive.
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
    -cf - "$name" | xz -T1 "${XZ_LEVEL:--9}" >"$folder/$name.tar.xz.new"
mv "$folder/$name.tar.xz.new" "$folder/$name.tar.xz"
echo "$folder/$name.tar.xz: $(stat -c %s "$folder/$name.tar.xz") bytes, $size unpacked"
