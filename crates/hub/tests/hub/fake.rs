//! A hub with one repository, and a cache, for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cachalot_hub::{Error, Hub, Repository, Revision, Settings, Token, is_model_file};
use ring::digest;
use serde_json::json;

use crate::server::{Reply, Request, Server};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const NAME: &str = "acme/tiny-model";
pub const TOKEN: &str = "hf_secret";

/// A file of the repository.
#[derive(Clone)]
pub struct File {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Whether it is hashed with SHA-256 and served by the other host, as large files are.
    pub is_large: bool,
}

impl File {
    pub fn small(name: &'static str, text: &str) -> Self {
        File {
            name,
            bytes: text.as_bytes().to_vec(),
            is_large: false,
        }
    }

    /// A file of bytes without pattern, different for every name.
    pub fn large(name: &'static str, byte_count: usize) -> Self {
        let mut state = name
            .bytes()
            .fold(1u64, |state, byte| state.wrapping_mul(31) + u64::from(byte));
        let next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        File {
            name,
            bytes: std::iter::repeat_with(next).take(byte_count).collect(),
            is_large: true,
        }
    }

    /// The name of its blob.
    pub fn hash(&self) -> String {
        if self.is_large {
            hexadecimal(&digest::SHA256, &[&self.bytes])
        } else {
            self.git_hash()
        }
    }

    fn git_hash(&self) -> String {
        let head = format!("blob {}\0", self.bytes.len());
        hexadecimal(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[head.as_bytes(), &self.bytes])
    }
}

fn hexadecimal(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The files of a model in two shards, and two files that a model does not need.
pub fn model() -> Vec<File> {
    vec![
        File::small(".gitattributes", "*.safetensors filter=lfs\n"),
        File::small("README.md", "# Tiny\n"),
        File::small("config.json", "{\"model_type\":\"deepseek_v4\"}\n"),
        File::small("inference/config.json", "{}"),
        File::large("model-00001-of-00002.safetensors", 300_000),
        File::large("model-00002-of-00002.safetensors", 200_001),
        File::small(
            "model.safetensors.index.json",
            r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
        ),
        File::small("tokenizer.json", "{}"),
    ]
}

/// The listing as a hub gives it.
pub fn listing(files: &[File]) -> String {
    let sibling = |file: &File| {
        let (name, size) = (file.name, file.bytes.len());
        let mut sibling = json!({"rfilename": name, "size": size, "blobId": file.git_hash()});
        if file.is_large {
            sibling["lfs"] = json!({"sha256": file.hash(), "size": size, "pointerSize": 135});
        }
        sibling
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    json!({"id": NAME, "sha": COMMIT, "siblings": siblings}).to_string()
}

/// The answer of a well-behaved hub, or `None` for what it does not have.
///
/// Large files are redirected to `localhost`, which is another host than the hub's `127.0.0.1`.
pub fn answer(files: &[File], request: &Request) -> Option<Reply> {
    let (path, _) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{NAME}/revision/")) {
        let is_known = revision == "main" || revision == COMMIT;
        return is_known.then(|| Reply::new(200, listing(files)));
    }
    if let Some(hash) = path.strip_prefix("/store/") {
        let file = files.iter().find(|file| file.hash() == hash)?;
        return Some(content(file, request).header("ETag", "\"some-store-tag\""));
    }
    let name = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/"))?;
    let file = files.iter().find(|file| file.name == name)?;
    let hash = file.hash();
    let reply = if file.is_large {
        let host = request.header("host")?.replace("127.0.0.1", "localhost");
        Reply::new(302, "")
            .header("Location", format!("http://{host}/store/{hash}?Signature=secret"))
            .header("X-Linked-ETag", format!("\"{hash}\""))
            .header("X-Linked-Size", file.bytes.len().to_string())
    } else {
        content(file, request).header("ETag", format!("\"{hash}\""))
    };
    Some(reply.header("X-Repo-Commit", COMMIT))
}

/// The bytes that a request asks for.
pub fn content(file: &File, request: &Request) -> Reply {
    let size = file.bytes.len();
    match request.range_start() {
        None => Reply::new(200, &file.bytes[..]),
        Some(start) if start < size => {
            Reply::new(206, &file.bytes[start..]).header("Content-Range", format!("bytes {start}-{}/{size}", size - 1))
        }
        Some(_) => Reply::new(416, "").header("Content-Range", format!("bytes */{size}")),
    }
}

/// A hub, an empty cache, and the settings that bring them together.
pub struct World {
    pub server: Server,
    pub files: Vec<File>,
    pub settings: Settings,
    folder: tempfile::TempDir,
}

impl World {
    /// A well-behaved hub.
    pub fn new(files: Vec<File>) -> Self {
        World::with(files, |_, _| None)
    }

    /// A hub that answers first what `odd` says, if it says something, and otherwise behaves well. `odd` gets
    /// the request and how many came for the same target before.
    pub fn with(files: Vec<File>, odd: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let of_server = files.clone();
        let server = Server::start(move |request, earlier_count| {
            odd(request, earlier_count)
                .or_else(|| answer(&of_server, request))
                .unwrap_or_else(|| Reply::new(404, ""))
        });
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = Settings::new(folder.path().join("hub"));
        settings.endpoint = server.url();
        settings.retry.attempt_count = 3;
        settings.retry.wait_first = Duration::from_millis(2);
        settings.retry.wait_max = Duration::from_millis(5);
        World {
            server,
            files,
            settings,
            folder,
        }
    }

    pub fn with_token(mut self) -> Self {
        self.settings.token = Token::parse(TOKEN).unwrap();
        self
    }

    pub fn changing(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub fn hub(&self) -> Hub {
        Hub::new(self.settings.clone()).unwrap()
    }

    pub fn download(&self) -> Result<PathBuf, Error> {
        let never = AtomicBool::new(false);
        self.hub()
            .download(&repository(), &Revision::default(), &is_model_file, &|_| {}, &never)
    }

    pub fn find_cached(&self) -> Option<PathBuf> {
        self.hub()
            .find_cached(&repository(), &Revision::default(), &is_model_file)
    }

    pub fn file(&self, name: &str) -> &File {
        self.files
            .iter()
            .find(|file| file.name == name)
            .expect("a file of the repository")
    }

    /// The folder of the repository inside the cache.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("hub/models--acme--tiny-model")
    }

    pub fn blob(&self, name: &str) -> PathBuf {
        self.folder().join("blobs").join(self.file(name).hash())
    }

    pub fn partial_blob(&self, name: &str) -> PathBuf {
        self.blob(name).with_extension("incomplete")
    }

    /// Checks that a snapshot holds exactly the wanted files, with the right bytes, and that nothing
    /// unfinished is left.
    pub fn assert_complete(&self, snapshot: &Path) {
        let mut wanted: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.name != ".gitattributes" && !file.name.contains('/'))
            .map(|file| file.name)
            .collect();
        wanted.sort_unstable();
        assert_eq!(names_in(snapshot), wanted);
        for name in wanted {
            assert!(
                fs::read(snapshot.join(name)).unwrap() == self.file(name).bytes,
                "{name}"
            );
        }
        assert!(
            names_in(&self.folder().join("blobs"))
                .iter()
                .all(|name| !name.contains('.'))
        );
        assert_eq!(self.find_cached().as_deref(), Some(snapshot));
    }
}

pub fn repository() -> Repository {
    NAME.parse().unwrap()
}

/// The names in a folder, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort_unstable();
    names
}
