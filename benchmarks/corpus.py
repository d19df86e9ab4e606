"""Builds the text that `benchmarks/tokenizer.py` measures on, from shared data and Debian packages.

    python -m benchmarks.corpus --data ../shared/data --out /tmp/corpus

English, code and Chinese: the JSON lines below `--data` (`pretrain` and `chat`), and the files of
the Debian packages named in `PACKAGES`, fetched by `apt-get download` and read without installing.
HTML loses its tags, manual pages their requests, code stays as it is. A document whose text has
been seen is dropped, so nothing repeats to fill a size; the order is that of the text's hash, so
the same packages give the same files. Chinese is what holds more than 12 % Han characters.

Writes `mix.jsonl` (200 MB of text: 52 % English, 24 % code, 24 % Chinese), eight
`full/NN.jsonl.gz` (all of it, at most 230 MB of code),
`heldout_KIND.jsonl` (2 % that no training file holds), `zh.jsonl` (the Chinese of `--data` alone),
and `corpus.json`, which says what they hold.
"""

import argparse
import gzip
import hashlib
import html
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import zstandard

PACKAGES = """
debian-handbook debian-reference-en debian-reference-zh-cn debian-reference-zh-tw debian-policy
developers-reference maint-guide-zh-cn maint-guide-zh-tw debian-edu-doc-zh-cn debian-faq-zh-cn
manpages manpages-dev manpages-zh fortunes-zh git-doc bash-doc perl-doc octave-doc r-base-html
libreoffice-help-en-us libreoffice-help-zh-cn libreoffice-help-zh-tw gimp-help-en gimp-help-zh-cn
lilypond-doc lilypond-doc-html-zh linuxcnc-doc-en linuxcnc-doc-zh-cn kicad-doc-en kicad-doc-zh
postgresql-doc-15 openjdk-17-doc rust-doc python3.11-doc python-django-doc linux-doc-6.1
linux-source-6.1 emacs-el golang-1.19-src rust-src libboost1.74-dev libpython3.11-stdlib
libpython3.11-testsuite perl-modules-5.36
""".split()
CODE = set(".c .h .S .py .el .rs .pl .pm .js .sh .hpp .cpp .ipp .go .java .css .toml .s".split())
PROSE = set(".txt .rst .md .pod .texi .po".split())
HTML = {".html", ".htm", ".xhtml"}
REGISTER_TABLES = re.compile(r"/asic_reg/|/include/.*_(offset|sh_mask|d|enum)\.h$")
"""Generated lists of hardware registers, a third of the kernel's bytes: left out."""
OTHER_LANGUAGES = re.compile(r"/(?!en|zh)[a-z]{2}-[A-Z]{2}/")
"""Translations of the Debian handbook."""

KINDS = ("en", "code", "zh")
MIX_BYTES = 200_000_000
MIX_SHARES = {"en": 0.52, "code": 0.24, "zh": 0.24}
CODE_BYTES = 230_000_000
FILES = 8
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with pretrain/, chat/")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    debs = out / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    documents = _distinct(_all_documents(arguments.data, debs))
    sizes = _write(documents, out)
    chinese = _distinct(_shared(arguments.data, "pretrain/zh_*"))
    sizes["zh"] = _write_lines(out / "zh.jsonl", [text for _, (_, text) in sorted(chinese.items())])
    (out / "corpus.json").write_text(json.dumps(sizes, indent=1) + "\n")
    print(json.dumps(sizes, indent=1))
    return 0


def _all_documents(data: Path, debs: Path) -> Iterator[tuple[str, str]]:
    yield from _shared(data, "pretrain/*")
    yield from _shared(data, "chat/*")
    for name in PACKAGES:
        try:
            package = _package(name, debs)
        except subprocess.CalledProcessError:
            print(f"no package {name}", file=sys.stderr)
            continue
        before = Counter[str]()
        for kind, text in _package_documents(package):
            before[kind] += len(text.encode())
            yield kind, text
        print(name, dict(before), file=sys.stderr)


def _shared(data: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted(data.glob(pattern)):
        if ".jsonl" not in path.name:
            continue
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                text = row.get("text") or _talk(row)
                if text:
                    yield _kind(text), text


def _talk(row: dict[str, Any]) -> str:
    turns = row.get("messages") or row.get("conversations") or []
    return "\n\n".join(str(turn.get("content") or turn.get("value") or "") for turn in turns)


def _package(name: str, debs: Path) -> Path:
    """The package's file, downloaded once."""
    if not (found := sorted(debs.glob(f"{name}_*.deb"))):
        command = ["apt-get", "download", "-q", name]  # by name, through the machine's own client
        subprocess.run(command, cwd=debs, check=True, capture_output=True)  # noqa: S603
        found = sorted(debs.glob(f"{name}_*.deb"))
    return found[0]


def _package_documents(package: Path) -> Iterator[tuple[str, str]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking:  # noqa: S603
        assert unpacking.stdout is not None
        yield from _tar_documents(unpacking.stdout)


def _tar_documents(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=stream, mode="r|") as files:
        for member in files:
            if not member.isfile() or not (content := files.extractfile(member)):
                continue
            if PurePosixPath(member.name).name.startswith("linux-source-"):
                with lzma.open(io.BytesIO(content.read())) as inner:
                    yield from _tar_documents(inner)
            elif 200 < member.size < 4_000_000:
                yield from _file_documents(member.name, content.read())


def _file_documents(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    if name.endswith(".gz"):
        name, data = name.removesuffix(".gz"), gzip.decompress(data)
    suffix = PurePosixPath(name).suffix
    manual, fortune = "/man/" in name, "/fortunes/" in name
    if not (suffix in CODE | PROSE | HTML or manual or fortune):
        return
    if REGISTER_TABLES.search(name) or OTHER_LANGUAGES.search(name):
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if suffix in HTML:
        text = _without_tags(text)
    elif manual:
        text = _without_requests(text)
    if len(text) >= 200:
        kind = _kind(text)
        yield ("code" if suffix in CODE and kind == "en" else kind), text


_DROPPED = re.compile(r"(?is)<(script|style|head|nav)\b.*?</\1\s*>|<!--.*?-->")
_BREAK = re.compile(r"(?i)</?(p|div|li|ul|ol|tr|h\d|pre|br|table|dt|dd|section)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_GAPS = re.compile(r"[ \t]*\n\s*\n")


def _without_tags(page: str) -> str:
    text = _TAG.sub("", _BREAK.sub("\n", _DROPPED.sub(" ", page)))
    return _GAPS.sub("\n\n", html.unescape(text)).strip()


def _without_requests(page: str) -> str:
    """A manual page's text: roff requests lose their name, escapes their backslash form."""
    text = re.sub(r"(?m)^[.']\\\".*\n?|^[.']\s*[A-Za-z]{1,4}\b ?", "", page)
    return re.sub(r"\\f.|\\&", "", text).replace("\\-", "-")


def _kind(text: str) -> str:
    return "zh" if len(HAN.findall(text)) > 0.12 * len(text) else "en"


def _distinct(documents: Iterable[tuple[str, str]]) -> dict[bytes, tuple[str, str]]:
    """Hash of a text without its spacing -> its kind and the text, each text once."""
    found: dict[bytes, tuple[str, str]] = {}
    for kind, text in documents:
        clean = text.encode(errors="replace").decode()
        key = hashlib.blake2b(" ".join(clean.split()).encode(), digest_size=16).digest()
        found.setdefault(key, (kind, clean))
    return found


def _write(documents: dict[bytes, tuple[str, str]], out: Path) -> dict[str, Any]:
    heldout: dict[str, list[str]] = {kind: [] for kind in KINDS}
    training: list[tuple[str, str]] = []
    for key, (kind, text) in sorted(documents.items()):
        if key[-2:] < b"\x05\x1e":  # 2 %
            heldout[kind].append(text)
        else:
            training.append((kind, text))
    sizes: dict[str, Any] = {
        f"heldout_{kind}": _write_lines(out / f"heldout_{kind}.jsonl", heldout[kind])
        for kind in KINDS
    }
    limits = {kind: int(share * MIX_BYTES) for kind, share in MIX_SHARES.items()}
    sizes["mix"] = _write_lines(out / "mix.jsonl", [text for _, text in _first(training, limits)])
    (out / "full").mkdir(exist_ok=True)
    full = _first(training, {"en": sys.maxsize, "code": CODE_BYTES, "zh": sys.maxsize})
    for number in range(FILES):
        texts = [text for _, text in full[number::FILES]]
        sizes[f"full/{number:02d}"] = _write_lines(out / "full" / f"{number:02d}.jsonl.gz", texts)
    bytes_of = Counter[str]()
    for kind, text in full:
        bytes_of[kind] += len(text.encode())
    return {"bytes by kind in full": bytes_of, **sizes}


def _first(training: list[tuple[str, str]], limits: dict[str, int]) -> list[tuple[str, str]]:
    """The first documents of every kind up to its limit in bytes, in the order of another hash."""
    taken: dict[bytes, tuple[str, str]] = {}
    total = Counter[str]()
    for kind, text in training:
        data = text.encode()
        if total[kind] + len(data) <= limits[kind]:
            total[kind] += len(data)
            taken[hashlib.blake2b(data).digest()] = (kind, text)
    return [document for _, document in sorted(taken.items())]


def _write_lines(path: Path, texts: Iterable[str]) -> dict[str, int]:
    documents = total = 0
    with gzip.open(path, "wb", 6) if path.suffix == ".gz" else path.open("wb") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            documents, total = documents + 1, total + len(text.encode())
    return {"documents": documents, "text_bytes": total}


if __name__ == "__main__":
    sys.exit(main())
