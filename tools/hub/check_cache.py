"""Checks that the caches of cachalot-hub and of huggingface_hub are one and the same.

Needs huggingface_hub (tried with 2.4.0), cargo and openssl; no network. Run from the repository's root:

    python tools/hub/check_cache.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
try:
    import huggingface_hub
except ImportError:
    sys.exit("huggingface_hub is not installed: pip install huggingface_hub")

from fake_hub import COMMIT, FILES, REPOSITORY, FakeHub, blob_name

FOLDER = "models--" + REPOSITORY.replace("/", "--")
WANTED = sorted(name for name in FILES if "/" not in name and name != ".gitattributes")


def fetch_command() -> list[str]:
    build = ["cargo", "build", "--quiet", "-p", "cachalot-hub", "--example", "fetch"]
    subprocess.run(build, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return [str(target / "debug/examples/fetch"), REPOSITORY]


def environment(cache: Path, url: str, **more: str) -> dict:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": url, "HF_TOKEN": "hf_secret"} | more


def contents(cache: Path) -> dict:
    """What both tools must agree on: references, links and blobs."""
    folder = cache / FOLDER
    found = {}
    for part in ("refs", "snapshots", "blobs"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def check(name: str, passed: bool):
    print(f"{'ok  ' if passed else 'FAIL'} {name}")
    if not passed:
        sys.exit(1)


def check_ours_seen_by_theirs(cache: Path, snapshot: Path, hub: FakeHub):
    found = huggingface_hub.snapshot_download(REPOSITORY, cache_dir=cache, local_files_only=True)
    check("snapshot_download(local_files_only=True) gives our folder", Path(found) == snapshot)
    for name in WANTED:
        found = huggingface_hub.try_to_load_from_cache(REPOSITORY, name, cache_dir=cache)
        if found != str(snapshot / name) or Path(found).read_bytes() != FILES[name]:
            check(f"try_to_load_from_cache finds {name}", False)
    check(f"try_to_load_from_cache finds all {len(WANTED)} files with their bytes", True)
    scan = huggingface_hub.scan_cache_dir(cache)
    (repository,) = scan.repos
    (revision,) = repository.revisions
    check("scan_cache_dir has no warning", not scan.warnings)
    check("scan_cache_dir sees one revision, 'main'", revision.refs == {"main"} and revision.commit_hash == COMMIT)
    check("scan_cache_dir sees all files", sorted(file.file_name for file in revision.files) == WANTED)
    request_count = len(hub.requests)
    huggingface_hub.snapshot_download(REPOSITORY, cache_dir=cache, endpoint=hub.url, allow_patterns=WANTED)
    later = hub.requests[request_count:]
    check("snapshot_download over the network fetches none of our files",
          not any(method == "GET" and "/resolve/" in path for method, path, _ in later))


def main():
    fetch = fetch_command()
    hub = FakeHub()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, both = (Path(folder).resolve() / name for name in ("ours", "theirs", "both"))
        found = subprocess.run(fetch, env=environment(ours, hub.url), stdout=subprocess.PIPE, check=True, text=True)
        snapshot = Path(found.stdout.strip())
        check("we give the snapshot's folder", snapshot == ours / FOLDER / "snapshots" / COMMIT)
        tokens = {path.split("?")[0]: headers.get("authorization", headers.get("Authorization"))
                  for _, path, headers in hub.requests}
        check("our token goes to the hub only",
              all((token is None) == path.startswith("/store/") for path, token in tokens.items()))

        huggingface_hub.snapshot_download(REPOSITORY, cache_dir=theirs, endpoint=hub.url, allow_patterns=WANTED)
        check("references, links and blobs are equal to theirs", contents(ours) == contents(theirs))
        check("blobs have the expected names",
              {blob_name(name) for name in WANTED} == {path.name for path in (ours / FOLDER / "blobs").iterdir()})

        offline = environment(theirs, "http://127.0.0.1:1", HF_HUB_OFFLINE="1")
        for what in ("with", "without"):
            subprocess.run(fetch, env=offline, stdout=subprocess.DEVNULL, check=True)
            check(f"we find their snapshot offline, {what} their listing", True)
            shutil.rmtree(theirs / FOLDER / "trees", ignore_errors=True)
        (theirs / FOLDER / "blobs" / blob_name(WANTED[-2])).unlink()
        failed = subprocess.run(fetch, env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        check("we do not take their snapshot when a blob is gone", failed.returncode == 1)
        check_ours_seen_by_theirs(ours, snapshot, hub)

        pair = [subprocess.Popen(fetch, env=environment(both, hub.url), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL) for _ in range(2)]
        check("two processes at once succeed", [process.wait() for process in pair] == [0, 0])
        check("and leave what one leaves", contents(both) == contents(ours))

        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                        certificate, "-days", "1", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost",
                        "-addext", "basicConstraints=critical,CA:FALSE"], check=True, stderr=subprocess.DEVNULL)
        secure = FakeHub((certificate, key))
        trusting = environment(Path(folder) / "tls", secure.url, SSL_CERT_FILE=certificate)
        subprocess.run(fetch, env=trusting, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        check("HTTPS with the authority of SSL_CERT_FILE", True)
        doubting = environment(Path(folder) / "doubt", secure.url)
        failed = subprocess.run(fetch, env=doubting, capture_output=True, text=True)
        check("HTTPS with an unknown authority is refused", failed.returncode == 1 and "certificate" in failed.stderr)


if __name__ == "__main__":
    main()
