use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, parse_pem};

use crate::{Error, Result};

const CONNECTION_COUNT_MAX: usize = 64;
const TOKEN_BYTES_MAX: usize = 4096;

/// Everything that a [`Hub`](crate::Hub) is told from outside.
///
/// [`Settings::from_environment`] follows the variables of the Hugging Face tools, so that all of them
/// share one cache; [`Settings::new`] reads nothing. Change fields before handing it to
/// [`Hub::new`](crate::Hub::new), which checks them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where the hub is. Default `https://huggingface.co`.
    pub endpoint: String,
    /// The cache folder, which holds `models--organisation--name`. Default `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// What proves who asks; sent to the endpoint's host only. Default none.
    pub token: Option<Token>,
    /// Whether the network may not be used. Default false.
    pub offline: bool,
    /// How many files are fetched at once, 1 to 64. Default 4.
    pub connection_count: usize,
    /// Limit for looking up a host, and again for connecting. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a connection may stay silent before it counts as cut. Default 30 s.
    pub stall_timeout: Duration,
    /// When to try again, and how often.
    pub retry: RetrySettings,
    /// Authorities to trust instead of the built-in ones (Mozilla's). Default none.
    pub certificates: Option<Certificates>,
    /// The proxy, if the environment names one.
    proxy: Option<ureq::Proxy>,
}

/// When a request that failed in passing is tried again.
///
/// The pause doubles from `wait_first` to `wait_max`; up to half of it is taken off at random, so that
/// connections cut together do not come back together.
#[derive(Clone, Debug)]
pub struct RetrySettings {
    /// How many requests in a row may fail before giving up. A transfer that moved at least 1 MiB since
    /// the last failure starts the count again. Default 6.
    pub attempt_count: u32,
    /// The pause after the first failure. Default 500 ms.
    pub wait_first: Duration,
    /// The longest pause. Default 30 s.
    pub wait_max: Duration,
    /// The longest pause that is granted to a server that asks for one. Default 5 minutes.
    pub server_wait_max: Duration,
}

/// An access token. Its text appears in no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Certificate authorities read from a PEM file.
#[derive(Clone)]
pub struct Certificates(pub(crate) Vec<Certificate<'static>>);

impl Settings {
    /// The defaults with the given cache folder: no token, no proxy, nothing read from the environment.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Settings {
            endpoint: "https://huggingface.co".to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            connection_count: 4,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            retry: RetrySettings::default(),
            certificates: None,
            proxy: None,
        }
    }

    /// The settings that the user's environment asks for.
    ///
    /// | what | variables, the first that is set and not empty |
    /// | --- | --- |
    /// | endpoint | `HF_ENDPOINT` |
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `$HF_HOME/token` |
    /// | no token from a variable or file | `HF_HUB_DISABLE_IMPLICIT_TOKEN` = 1, on, yes, true |
    /// | offline | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` = 1, on, yes, true |
    /// | authorities | the PEM file `SSL_CERT_FILE` |
    /// | proxy | `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, with exceptions in `NO_PROXY` |
    ///
    /// A leading `~/` stands for the home folder.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value that cannot be used, [`Error::Io`] for a file that is named but cannot
    /// be read.
    pub fn from_environment() -> Result<Self> {
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let mut settings = Self::from_variables(env::var_os, home)?;
        settings.proxy = ureq::Proxy::try_from_env();
        Ok(settings)
    }

    fn from_variables(variable: impl Fn(&'static str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let path = |name| set(name).map(|value| expand_home(PathBuf::from(value), home.as_deref()));
        let is_true = |name| {
            let value = set(name).map(|value| value.to_string_lossy().to_ascii_uppercase());
            matches!(value.as_deref(), Some("1" | "ON" | "YES" | "TRUE"))
        };
        let hugging_face_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hugging_face_home.as_ref().map(|folder| folder.join("hub")))
            .ok_or_else(|| Error::Setting {
                setting: "HF_HUB_CACHE",
                reason: "it is not set and there is no home folder to put a cache into".to_owned(),
            })?;

        let mut settings = Settings::new(cache);
        if let Some(endpoint) = set("HF_ENDPOINT") {
            settings.endpoint = endpoint.to_string_lossy().into_owned();
        }
        settings.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
        if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            let from_variable = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
            let file = path("HF_TOKEN_PATH").or_else(|| hugging_face_home.map(|folder| folder.join("token")));
            settings.token = match (from_variable, file) {
                (Some(text), _) => Token::parse(&text.to_string_lossy())?,
                (None, Some(file)) => Token::from_file(&file)?,
                (None, None) => None,
            };
        }
        settings.certificates = path("SSL_CERT_FILE")
            .map(|file| Certificates::from_file(&file))
            .transpose()?;
        Ok(settings)
    }

    pub(crate) fn proxy(&self) -> Option<ureq::Proxy> {
        self.proxy.clone()
    }

    /// Checks what the type system does not.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |setting, reason: &str| {
            Err(Error::Setting {
                setting,
                reason: reason.to_owned(),
            })
        };
        if !(1..=CONNECTION_COUNT_MAX).contains(&self.connection_count) {
            return refuse("connection_count", "expected 1 to 64");
        }
        if self.retry.attempt_count == 0 {
            return refuse("attempt_count", "expected at least 1");
        }
        if self.connect_timeout.is_zero() || self.stall_timeout.is_zero() {
            return refuse("a timeout", "expected more than zero");
        }
        if self.cache.as_os_str().is_empty() {
            return refuse("cache", "expected a folder");
        }
        Ok(())
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings {
            attempt_count: 6,
            wait_first: Duration::from_millis(500),
            wait_max: Duration::from_secs(30),
            server_wait_max: Duration::from_secs(300),
        }
    }
}

impl Token {
    /// Takes the text of a token; spaces and line ends around it are dropped, and nothing but those is no token.
    ///
    /// # Errors
    /// [`Error::Setting`] for text that cannot stand in a header.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Setting {
                setting: "the access token",
                reason: "expected at most 4096 visible ASCII characters".to_owned(),
            });
        }
        Ok((!text.is_empty()).then(|| Token(text.to_owned())))
    }

    fn from_file(file: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(file) {
            Ok(text) => Token::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read the access token in", file)(error)),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl Certificates {
    /// Reads every certificate of a PEM file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Setting`] if it holds no certificate.
    pub fn from_file(file: &Path) -> Result<Self> {
        let text = fs::read(file).map_err(Error::io("read the certificates in", file))?;
        let certificates: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            let reason = format!("{} holds no certificate in PEM form", file.display());
            return Err(Error::Setting {
                setting: "SSL_CERT_FILE",
                reason,
            });
        }
        Ok(Certificates(certificates))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Certificates({})", self.0.len())
    }
}

fn expand_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'static str, &'a str)];

    fn settings(variables: Variables<'_>) -> Result<Settings> {
        let find = |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::from_variables(find, Some(PathBuf::from("/home/ada")))
    }

    #[test]
    fn the_cache_is_where_the_other_tools_look() {
        let cases: &[(Variables<'_>, &str)] = &[
            (&[], "/home/ada/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")], "/home/ada/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (
                &[
                    ("HF_HUB_CACHE", "/c"),
                    ("HF_HOME", "/hf"),
                    ("HUGGINGFACE_HUB_CACHE", "/old"),
                ],
                "/c",
            ),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/hf")], "/hf/hub"),
        ];
        for (variables, expected) in cases {
            assert_eq!(settings(variables).unwrap().cache, Path::new(expected), "{variables:?}");
        }
        assert!(Settings::from_variables(|_| None, None).is_err());
    }

    #[test]
    fn the_token_comes_from_the_variable_then_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        fs::write(folder.path().join("other"), " hf_other ").unwrap();
        let other = format!("{home}/other");
        let cases: &[(Variables<'_>, Option<&str>)] = &[
            (&[("HF_HOME", home)], Some("hf_file")),
            (&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)], Some("hf_other")),
            (
                &[("HF_HOME", home), ("HF_TOKEN", "hf_variable\r\n")],
                Some("hf_variable"),
            ),
            (&[("HF_HOME", home), ("HF_TOKEN", " ")], None),
            (&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true")], None),
            (&[("HF_HOME", "/nonexistent")], None),
        ];
        for (variables, expected) in cases {
            let token = settings(variables).unwrap().token;
            assert_eq!(token.as_ref().map(Token::text), *expected, "{variables:?}");
        }
        assert!(settings(&[("HF_TOKEN", "a\nX-Header: b")]).is_err());
        let token = settings(&[("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{token:?}").contains("hf_secret"));
    }

    #[test]
    fn switches_and_limits() {
        assert!(settings(&[("HF_HUB_OFFLINE", "yes")]).unwrap().offline);
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert_eq!(
            settings(&[("HF_ENDPOINT", "https://m.x/")]).unwrap().endpoint,
            "https://m.x/"
        );
        assert!(settings(&[("SSL_CERT_FILE", "/nonexistent")]).is_err());
        let mut settings = Settings::new("/c");
        settings.check().unwrap();
        settings.connection_count = 0;
        assert!(settings.check().is_err());
    }
}
