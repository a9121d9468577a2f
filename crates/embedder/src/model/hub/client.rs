//! What is asked of the hub over HTTP. The only place that names `ureq`.
//!
//! The hub answers for a large file with a redirect to where it lies, and says in that answer what
//! the file is: its commit, checksum and size. So the first redirect to another host is read, not
//! followed, when asking what a file is.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use ureq::config::{ConfigBuilder, RedirectAuthHeaders};
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::{AgentScope, WithoutBody};
use ureq::{Agent, Body, RequestBuilder};

use super::cache::Checksum;
use super::{Reference, Settings, Token, is_commit};

/// From the name to a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From a request to the head of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two pieces of a file. Not for the whole of it: that takes as long as it takes.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A renamed model is redirected once, a small file once more.
const MAX_REDIRECTS: usize = 5;

/// The hub's `X-Error-Code` for a revision without the file that is asked for.
pub(super) const NO_SUCH_FILE: &str = "EntryNotFound";

/// Asks one hub.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: String,
    token: Option<Token>,
    /// Shows redirects.
    asking: Agent,
    /// Follows them; the token stays with the hub.
    reading: Agent,
}

/// What the hub says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) commit: String,
    pub(super) checksum: Checksum,
    pub(super) size: u64,
}

/// Why a file can't be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is there, or has the time.
    Unreachable(String),
    Status {
        code: u16,
        /// The hub's own word for what is wrong.
        kind: Option<String>,
        /// Of which it says so.
        commit: Option<String>,
    },
    /// An answer that can't be used.
    Malformed(String),
    Interrupted {
        received: u64,
        size: u64,
        cause: String,
    },
    Checksum,
    Cache {
        path: PathBuf,
        cause: io::Error,
    },
}

// === impl Client ===

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let reading = agent().redirect_auth_headers(RedirectAuthHeaders::SameHost);
        Self {
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            asking: agent().max_redirects(0).build().into(),
            reading: reading.build().into(),
        }
    }

    /// Where a file is asked for.
    pub(super) fn address(&self, reference: &Reference, revision: &str, file: &str) -> String {
        let (endpoint, id) = (&self.endpoint, reference.id());
        // A revision is one part of the path, whatever its name.
        format!("{endpoint}/{id}/resolve/{}/{file}", revision.replace('/', "%2F"))
    }

    /// Asks what a file is at a revision.
    pub(super) fn metadata(
        &self,
        reference: &Reference,
        revision: &str,
        file: &str,
    ) -> Result<Metadata, Failure> {
        let mut address = self.address(reference, revision, file);
        for _ in 0..=MAX_REDIRECTS {
            let request = self.authorised(self.asking.head(&address));
            let response = request.call().map_err(unreachable)?;
            let status = response.status();
            let elsewhere = header(&response, "location").filter(|_| status.is_redirection());
            // Within the hub, as for a model that was renamed.
            if let Some(path) = elsewhere.filter(|location| location.starts_with('/')) {
                address = format!("{}{path}", origin(&self.endpoint));
                continue;
            }
            return Metadata::of(&checked(response)?);
        }
        Err(Failure::Malformed("too many redirects".to_owned()))
    }

    /// Reads a file from a place in it on, or from its start if the server knows no places; says
    /// which.
    pub(super) fn read(
        &self,
        address: &str,
        start: u64,
    ) -> Result<(u64, impl Read + use<>), Failure> {
        let mut request = self.authorised(self.reading.get(address));
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let response = checked(request.call().map_err(unreachable)?)?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => start,
            _ => 0,
        };
        if start > 0 && range_start(&response) != Some(start) {
            return Err(Failure::Malformed("it sends another part than was asked for".to_owned()));
        }
        Ok((start, response.into_body().into_reader()))
    }

    fn authorised(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.secret())),
            None => request,
        }
    }
}

fn agent() -> ConfigBuilder<AgentScope> {
    // Trusts whom the machine trusts, so that a company's mirror may have a company's certificate.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("clipmesh/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_send_request(Some(ANSWER_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT))
}

// === impl Metadata ===

impl Metadata {
    fn of(response: &Response<Body>) -> Result<Self, Failure> {
        let lacks = |name: &str| Failure::Malformed(format!("it has no usable header `{name}`"));
        let commit = header(response, "x-repo-commit").filter(|commit| is_commit(commit));
        // Of the file itself where it lies elsewhere; the plain ones are then of the redirect.
        let tag = header(response, "x-linked-etag").or_else(|| header(response, "etag"));
        let size = match response.status().is_redirection() {
            true => header(response, "x-linked-size"),
            false => {
                header(response, "x-linked-size").or_else(|| header(response, "content-length"))
            }
        };
        Ok(Self {
            commit: commit.ok_or_else(|| lacks("x-repo-commit"))?.to_owned(),
            checksum: tag.and_then(Checksum::parse).ok_or_else(|| lacks("etag"))?,
            size: size.and_then(|size| size.parse().ok()).ok_or_else(|| lacks("content-length"))?,
        })
    }
}

// === impl Failure ===

impl Failure {
    /// Whether the model is there, and the file is not.
    pub(super) fn is_no_such_file(&self) -> bool {
        let Self::Status { code: 404, kind, .. } = self else { return false };
        // Mirrors don't say what is not there. It's likely the file: enough to do without it, not
        // to remember it.
        kind.as_deref().is_none_or(|kind| kind == NO_SUCH_FILE)
    }

    /// Whether the hub itself says that this commit, which never changes, is without the file. A
    /// proxy's or a mirror's 404 may be gone tomorrow.
    pub(super) fn is_final_at(&self, asked: &str) -> bool {
        let Self::Status { kind, commit, .. } = self else { return false };
        kind.as_deref() == Some(NO_SUCH_FILE) && commit.as_deref() == Some(asked)
    }
}

/// Takes out answers that are refusals. A hub that is in trouble counts as one that is not there.
fn checked(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Failure::Unreachable(format!("it answers {status}")));
    }
    if status.is_client_error() {
        let text = |name| header(&response, name).map(str::to_owned);
        let (kind, commit) = (text("x-error-code"), text("x-repo-commit"));
        return Err(Failure::Status { code: status.as_u16(), kind, commit });
    }
    Ok(response)
}

fn unreachable(error: ureq::Error) -> Failure {
    Failure::Unreachable(error.to_string())
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// `content-range: bytes 100-199/200`.
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = header(response, "content-range")?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

/// An address without its path.
fn origin(endpoint: &str) -> &str {
    let host_at = endpoint.find("://").map_or(0, |at| at + 3);
    match endpoint[host_at..].find('/') {
        Some(length) => &endpoint[..host_at + length],
        None => endpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
        let response = Response::builder().status(status);
        let response =
            headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
        response.body(Body::builder().data("")).expect("a response")
    }

    const COMMIT: (&str, &str) = ("x-repo-commit", "0123456789abcdef0123456789abcdef01234567");
    const TAG: (&str, &str) = ("etag", "\"ce013625030ba8dba906f756967f9e9ca394464a\"");
    const LINKED_TAG: (&str, &str) =
        ("x-linked-etag", "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"");

    #[test]
    fn the_head_of_an_answer_says_what_the_file_is() {
        let small = response(200, &[COMMIT, TAG, ("content-length", "6")]);
        let small = Metadata::of(&small).expect("a small file");
        assert_eq!(small.size, 6, "as long as what is sent");
        assert!(matches!(small.checksum, Checksum::GitSha1(_)), "as git names it");
        let large = [COMMIT, TAG, LINKED_TAG, ("content-length", "99"), ("x-linked-size", "700")];
        let large = Metadata::of(&response(302, &large)).expect("a large file");
        assert_eq!(large.size, 700, "not as long as the redirect");
        assert!(matches!(large.checksum, Checksum::Sha256(_)), "not of the redirect");
    }

    #[test]
    fn an_answer_that_lacks_something_is_not_guessed_at() {
        for (headers, lacking) in [
            (&[TAG, ("content-length", "6")][..], "x-repo-commit"),
            (&[("x-repo-commit", "../../x"), TAG, ("content-length", "6")], "x-repo-commit"),
            (&[COMMIT, ("content-length", "6")], "etag"),
            (&[COMMIT, TAG], "content-length"),
        ] {
            match Metadata::of(&response(200, headers)) {
                Err(Failure::Malformed(message)) => {
                    assert!(message.contains(lacking), "{lacking} in: {message}");
                }
                other => panic!("{lacking} is missing: {other:?}"),
            }
        }
    }

    #[test]
    fn only_a_missing_file_is_a_missing_file() {
        let missing = |code, kind: Option<&str>| {
            let kind = kind.map(str::to_owned);
            Failure::Status { code, kind, commit: None }.is_no_such_file()
        };
        assert!(missing(404, Some("EntryNotFound")), "said so");
        assert!(missing(404, None), "of a mirror");
        assert!(!missing(404, Some("RepoNotFound")), "the model is missing");
        assert!(!missing(401, None), "not allowed");
    }

    #[test]
    fn only_the_hub_says_for_good_that_a_file_is_missing() {
        let is_final = |headers: &[_]| {
            let failure = checked(response(404, headers)).expect_err("a refusal");
            failure.is_final_at(COMMIT.1)
        };
        let missing = ("x-error-code", "EntryNotFound");
        assert!(is_final(&[missing, COMMIT]), "of this commit");
        assert!(!is_final(&[missing, ("x-repo-commit", "other")]), "of another one");
        assert!(!is_final(&[missing]), "of some commit");
        assert!(!is_final(&[COMMIT]), "something is missing");
        assert!(!is_final(&[]), "of a mirror, a proxy, a mistyped address");
    }

    #[test]
    fn a_path_replaces_the_path() {
        assert_eq!(origin("https://hub.example:8443/mirror/hf"), "https://hub.example:8443");
        assert_eq!(origin("http://hub"), "http://hub");
    }
}
