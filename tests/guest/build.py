"""Makes the guest's disk: a unified kernel image on an EFI partition, in a qcow2."""

from __future__ import annotations

import importlib.util
import marshal
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from guest import disk

HERE = Path(__file__).resolve().parent
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
BUSYBOX = Path("/bin/busybox")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev", "virtio_rng")
NEEDED = {
    "busybox": "busybox-static",
    "dropbear": "dropbear-bin",
    "objcopy": "binutils",
    "mformat": "mtools",
    "modprobe": "kmod",
    "qemu-img": "qemu-utils",
}
# Parts of the standard library that the agent does not need: most of its bytes.
UNWANTED = {
    "test", "idlelib", "tkinter", "lib2to3", "ensurepip", "distutils", "turtledemo",
    "pydoc_data", "site-packages", "dist-packages", "lib-dynload", "__pycache__",
    "unittest", "curses", "dbm", "sqlite3", "wsgiref", "xmlrpc", "multiprocessing",
    "venv", "msilib", "_pyrepl",
}  # fmt: skip
# Libraries that extension modules may need; modules that need more are left out.
LIBRARIES = re.compile(r"lib(c|m|dl|pthread|util|rt|z|ffi|python[\d.]+)\.so|ld-linux")
SHELL_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
for d in proc sys dev tmp etc/default var/run var/log; do $b mkdir -p /$d; done
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in /modules/*; do $b insmod $m; done
export PYTHONHOME=/
exec /bin/python3 -S -c '
import sys
sys.path.insert(0, "/guest")
import init
init.main()'
"""
DHCP = """\
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
/bin/busybox ifconfig "$interface" "$ip" netmask "$subnet"
[ -z "$router" ] || /bin/busybox route add default gw "$router"
"""
AGENT = """\
import sys
sys.path[:0] = ["/packages"]
from scw_signal.cli.process import run
run("signald")
"""
USERS = """\
root:x:0:0::/:/bin/sh
_scwsignal:x:999:999::/nonexistent:/bin/false
"""


def missing() -> str:
    """Return what must be installed before a guest can be built, or nothing."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            return package
    if not STUB.is_file():
        return "systemd-boot-efi"
    return "" if kernel() else "linux-image-cloud-amd64"


def kernel() -> Path | None:
    """Return the newest installed kernel of the cloud flavour."""
    return max(Path("/boot").glob("vmlinuz-*-cloud-amd64"), default=None)


def build(work: Path) -> Path:
    """Make the disk in an empty directory; return the qcow2."""
    root, image = work / "root", work / "guest.raw"
    fill(root)
    initramfs = work / "initramfs"
    archive(root, initramfs)
    unified(work, initramfs)
    sectors = disk.START + disk.ROOT_SECTORS + 64 + disk.LAST_SECTORS
    sectors += -sectors % 2048
    end = sectors - disk.LAST_SECTORS - 1
    parts = {"a": (disk.START, disk.ROOT_SECTORS, disk.FFS)}
    with image.open("wb") as file:
        file.truncate(sectors * disk.SECTOR)
        file.write(disk.gpt(sectors, end))
        file.seek((disk.START + 1) * disk.SECTOR)
        file.write(disk.label(b"\1" * 8, sectors, end, parts))
    place = f"{image}@@{disk.EFI_START * disk.SECTOR}"
    run("mformat", "-i", place, "-F", "-T", str(disk.EFI_SECTORS), "::")
    run("mmd", "-i", place, "::EFI", "::EFI/BOOT")
    run("mcopy", "-i", place, str(work / "linux.efi"), "::EFI/BOOT/BOOTX64.EFI")
    target = work / "guest.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", str(image), str(target))
    image.unlink()
    return target


def variant(base: Path, mode: str, target: Path) -> Path:
    """Make a copy of the disk that behaves differently; return it."""
    shutil.copyfile(base, target)
    write = f"write -s /dev/stdin {40 * disk.SECTOR} {disk.SECTOR}"
    word = target.with_suffix(".mode")
    word.write_bytes(mode.encode().ljust(disk.SECTOR, b"\0"))
    run("qemu-io", "-c", write.replace("/dev/stdin", str(word)), str(target))
    word.unlink()
    return target


def fill(root: Path) -> None:
    """Lay out the guest's files."""
    for name in ("bin", "lib", "modules", "guest", "packages", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or BUSYBOX, root / "bin/busybox")
    (root / "bin/hostname").symlink_to("busybox")
    for name in ("dropbear", "dropbearkey"):
        add_program(root, Path(str(shutil.which(name))), root / f"bin/{name}")
    add_modules(root)
    add_python(root)
    for package in ("scw_signal", "urllib3", "tenacity"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        place = Path(spec.origin).parent
        shutil.copytree(
            place, root / "packages" / package, ignore=lambda *_: ["emulator"]
        )
    for name in ("disk.py", "init.py"):
        shutil.copy(HERE / name, root / "guest" / name)
    add_text(root / "init", SHELL_INIT)
    add_text(root / "guest/dhcp", DHCP)
    add_text(root / "guest/agent.py", AGENT)
    add_text(root / "etc/passwd", USERS)
    add_text(root / "etc/group", "root:x:0:\n_scwsignal:x:999:\n")
    add_text(root / "etc/hostname", "not-yet\n")


def add_text(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def add_modules(root: Path) -> None:
    """Copy modules of the kernel, numbered in the order in which they are loaded."""
    here = kernel()
    assert here is not None
    version = here.name.partition("-")[2]
    paths: dict[str, None] = {}
    for name in MODULES:
        shown = output("modprobe", "-S", version, "--show-depends", name)
        paths |= dict.fromkeys(re.findall(r"^insmod (\S+)", shown, re.MULTILINE))
    for number, path in enumerate(paths):
        target = root / f"modules/{number:02}-{Path(path).name}"
        shutil.copy(path, target)
        if target.suffix == ".xz":
            run("xz", "-d", str(target))


def add_python(root: Path) -> None:
    """Copy this Python: the program, the library in a zip, and extension modules."""
    program = Path(sys.executable).resolve()
    add_program(root, program, root / "bin/python3")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    dynamic = root / f"lib/python{version}/lib-dynload"
    dynamic.mkdir(parents=True)
    library = Path(sysconfig.get_path("stdlib"))
    target = root / f"lib/python{version.replace('.', '')}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for source in sorted(library.rglob("*.py")):
            name = source.relative_to(library)
            if UNWANTED.isdisjoint(name.parts) and "config-" not in str(name):
                archive.writestr(str(name.with_suffix(".pyc")), compiled(source))
    for module in (library / "lib-dynload").glob("*.so"):
        needed = output("ldd", str(module))
        wanted = [line for line in needed.splitlines() if "=>" in line]
        if "_test" not in module.name and all(map(LIBRARIES.search, wanted)):
            add_program(root, module, dynamic / module.name)


def compiled(source: Path) -> bytes:
    """Return the byte code of a module, which usually exists already."""
    cached = Path(importlib.util.cache_from_source(str(source)))
    if cached.is_file() and cached.stat().st_mtime >= source.stat().st_mtime:
        return cached.read_bytes()
    try:
        code = compile(source.read_bytes(), source.name, "exec", dont_inherit=True)
    except SyntaxError:  # bad on purpose
        return b""
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def add_program(root: Path, source: Path, target: Path) -> None:
    """Copy a program, and its libraries to where it looks for them."""
    shutil.copy(source, target)
    target.chmod(target.stat().st_mode | stat.S_IWUSR)
    run("strip", "-g", str(target))
    for path in re.findall(r"(/\S+) \(0x", output("ldd", str(source))):
        place = root / ("lib64" if "ld-linux" in path else "lib")
        copy = place / Path(path).name
        if not copy.exists():
            place.mkdir(exist_ok=True)
            shutil.copy(path, copy)
            run("strip", "-g", str(copy))


def archive(root: Path, target: Path) -> None:
    """Make an uncompressed initramfs whose files are owned by root."""
    names = "\n".join(
        str(path.relative_to(root)) for path in (root, *sorted(root.rglob("*")))
    )
    with target.open("wb") as file:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"],
            cwd=root, input=names.encode(), stdout=file, check=True,
        )  # fmt: skip


def unified(work: Path, initramfs: Path) -> None:
    """Make a unified kernel image: one EFI program of stub, kernel and initramfs."""
    here = kernel()
    assert here is not None
    options = work / "options"
    options.write_text("console=ttyS0 quiet tsc=unstable nokaslr mitigations=off")
    rows = re.findall(
        r"^ +\d+ \S+ +([0-9a-f]{8}) +([0-9a-f]{16})",
        output("objdump", "-h", str(STUB)),
        re.MULTILINE,
    )  # fmt: skip
    at = max(int(place, 16) + int(size, 16) for size, place in rows)
    words: list[str] = []
    # The kernel comes last, because it may be unpacked beyond its end.
    for name, path in ((".cmdline", options), (".initrd", initramfs), (".linux", here)):
        at += -at % 4096
        words += ["--add-section", f"{name}={path}"]
        words += ["--change-section-vma", f"{name}={at:#x}"]
        at += path.stat().st_size
    run("objcopy", *words, str(STUB), str(work / "linux.efi"))


def run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def output(*words: str) -> str:
    # ldd fails for anything that is not a dynamic program; that is no error here.
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout
