//! A Hugging Face hub of our own: it answers as the real one does, and misbehaves on demand.
//!
//! ```text
//!   /ORG/NAME/resolve/REVISION/FILE ──► 307 /api/resolve-cache/…   small files, named by git
//!                                   └─► 302 http://localhost/cdn/… weights, named by SHA-256
//! ```

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The commit that all revisions are at, unless the hub behaves otherwise.
pub const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

/// How the names of large files end.
const WEIGHTS: &str = ".safetensors";

/// Serves one model until it is dropped.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What the hub has, and what it does wrong.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `org/name` of the one model.
    pub id: String,
    /// Where all revisions are.
    pub commit: String,
    /// Branches and pull requests, beside the commit itself.
    pub revisions: Vec<String>,
    /// Files that the model's folder has, and the hub does not.
    pub without: Vec<String>,
    /// Who doesn't name it sees nothing.
    pub token: Option<String>,
    /// The next answers with weights end after so many bytes, one entry for each.
    pub cuts: Vec<usize>,
    /// The weights are not what their checksum says.
    pub is_corrupt: bool,
    /// The weights stop after their first byte, and go on when this is over.
    pub is_stalling: bool,
    /// Which answers, by their status, lack the hub's own headers, as those of mirrors and proxies.
    pub is_bare: fn(u16) -> bool,
    /// Every answer is a 503.
    pub is_failing: bool,
}

/// A request that the hub got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `HEAD` or `GET`.
    pub method: String,
    pub path: String,
    /// The value of the header, as in `bytes=100-`.
    pub range: Option<String>,
    /// The value of the header, as in `Bearer …`.
    pub authorization: Option<String>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    /// The hub behaves otherwise, or closes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    asked: Vec<Asked>,
    is_closing: bool,
}

/// An answer, but for what comes with all of them.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Sent of the body before the connection is closed.
    cut_at: Option<usize>,
    /// Whether the body may stall.
    is_weights: bool,
}

// === impl Hub ===

impl Hub {
    /// Serves the files of a folder as a model.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(folder: &Path, behaviour: Behaviour) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("open a port for the hub")?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { behaviour, asked: Vec::new(), is_closing: false });
        let shared = Shared { folder: folder.to_owned(), state, changed: Condvar::new() };
        let shared = Arc::new(shared);
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if shared.lock().is_closing {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    // Ends with its one answer.
                    thread::spawn(move || {
                        // A client that has gone is no fault of the hub's.
                        let _gone = shared.serve(stream, address.port());
                    });
                }
            }
        });
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Behaves otherwise from the next request on.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
        self.shared.changed.notify_all();
    }

    /// What it was asked since the last time.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().asked)
    }

    /// The files whose content it gave since the last time.
    pub fn take_given(&self) -> BTreeSet<String> {
        let gets = self.take_asked().into_iter().filter(|asked| asked.method == "GET");
        gets.map(|asked| asked.file().to_owned()).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        // Wakes the thread up, which then closes the port.
        let _woken = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            // It panics only with a test that has failed anyway.
            let _panicked = accepting.join();
        }
    }
}

// === impl Asked ===

impl Asked {
    /// The last part of the path.
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn read(stream: &TcpStream) -> anyhow::Result<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().context("an empty request")??;
        let mut words = first.split(' ').map(str::to_owned);
        let mut asked = Self {
            method: words.next().context("no method")?,
            path: words.next().context("no path")?,
            range: None,
            authorization: None,
        };
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = Some(value.to_owned()),
                "authorization" => asked.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(asked)
    }
}

// === impl Behaviour ===

impl Behaviour {
    /// As it should be.
    pub fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            commit: COMMIT.to_owned(),
            revisions: vec!["main".to_owned()],
            without: Vec::new(),
            token: None,
            cuts: Vec::new(),
            is_corrupt: false,
            is_stalling: false,
            is_bare: |_| false,
            is_failing: false,
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream, port: u16) -> anyhow::Result<()> {
        let asked = Asked::read(&stream)?;
        let answer = self.answer(&asked, port);
        let is_bare = {
            let mut state = self.lock();
            state.asked.push(asked.clone());
            (state.behaviour.is_bare)(answer.status)
        };
        let mut head = format!("HTTP/1.1 {} .\r\nconnection: close\r\n", answer.status);
        let is_common = |name: &str| ["location", "content-range"].contains(&name);
        for (name, value) in answer.headers.iter().filter(|(name, _)| !is_bare || is_common(name)) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));
        stream.write_all(head.as_bytes())?;
        if asked.method == "HEAD" {
            return Ok(());
        }
        let length = answer.cut_at.unwrap_or(answer.body.len()).min(answer.body.len());
        let (first, rest) = answer.body[..length].split_at(length.min(1));
        stream.write_all(first)?;
        if answer.is_weights && !self.wait_for_the_rest() {
            return Ok(());
        }
        stream.write_all(rest)?;
        Ok(())
    }

    /// False if the hub closes before that.
    fn wait_for_the_rest(&self) -> bool {
        let stalls = |state: &mut State| state.behaviour.is_stalling && !state.is_closing;
        let state = self.changed.wait_while(self.lock(), stalls);
        !state.unwrap_or_else(PoisonError::into_inner).is_closing
    }

    fn answer(&self, asked: &Asked, port: u16) -> Answer {
        let behaviour = self.lock().behaviour.clone();
        if behaviour.is_failing {
            return Answer::of(503);
        }
        if asked.path.starts_with("/cdn/") {
            return self.weights(asked, &behaviour);
        }
        if asked.path.starts_with("/api/resolve-cache/") {
            return self.small_file(asked.file(), &behaviour.commit);
        }
        let expected = behaviour.token.as_ref().map(|token| format!("Bearer {token}"));
        let is_known = expected.is_none() || expected == asked.authorization;
        let refused = match asked.path[1..].split_once("/resolve/") {
            // The hub does not tell strangers what there is.
            _ if !is_known && asked.authorization.is_some() => Some(Answer::of(401)),
            Some((id, _)) if id != behaviour.id || !is_known => {
                let status = if asked.authorization.is_some() { 404 } else { 401 };
                Some(Answer::of(status).with("x-error-code", "RepoNotFound"))
            }
            Some((_, rest)) => self.missing(rest, &behaviour),
            None => Some(Answer::of(404)),
        };
        refused.unwrap_or_else(|| self.found(asked.file(), &behaviour.commit, port))
    }

    fn missing(&self, rest: &str, behaviour: &Behaviour) -> Option<Answer> {
        let (revision, file) = rest.split_once('/')?;
        let revision = revision.replace("%2F", "/");
        if revision != behaviour.commit && !behaviour.revisions.contains(&revision) {
            return Some(Answer::of(404).with("x-error-code", "RevisionNotFound"));
        }
        let is_there = self.folder.join(file).is_file();
        if !is_there || behaviour.without.iter().any(|missing| missing == file) {
            let answer = Answer::of(404).with("x-error-code", "EntryNotFound");
            return Some(answer.with("x-repo-commit", &behaviour.commit));
        }
        None
    }

    fn found(&self, file: &str, commit: &str, port: u16) -> Answer {
        if !file.ends_with(WEIGHTS) {
            let path = format!("/api/resolve-cache/models/{commit}/{file}");
            return Answer::of(307).with("location", path).with("x-repo-commit", commit);
        }
        let content = self.content(file);
        Answer::of(302)
            .with("location", format!("http://localhost:{port}/cdn/{file}"))
            .with("x-repo-commit", commit)
            .with("x-linked-etag", format!("\"{}\"", hex(&Sha256::digest(&content))))
            .with("x-linked-size", content.len())
    }

    fn small_file(&self, file: &str, commit: &str) -> Answer {
        let content = self.content(file);
        let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
        hasher.update(&content);
        let tag = format!("\"{}\"", hex(&hasher.finalize()));
        let answer = Answer::of(200).with("x-repo-commit", commit).with("etag", tag);
        Answer { body: content, ..answer }
    }

    fn weights(&self, asked: &Asked, behaviour: &Behaviour) -> Answer {
        let mut content = self.content(asked.file());
        if behaviour.is_corrupt {
            let last = content.len() - 1;
            content[last] ^= 1;
        }
        let range = asked.range.as_deref().and_then(|range| range.strip_prefix("bytes="));
        let start = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        let size = content.len();
        let answer = match start {
            Some(start) => {
                Answer::of(206).with("content-range", format!("bytes {start}-{}/{size}", size - 1))
            }
            None => Answer::of(200),
        };
        let mut state = self.lock();
        let cuts = &mut state.behaviour.cuts;
        let cut_at = (!cuts.is_empty()).then(|| cuts.remove(0));
        let body = content.split_off(start.unwrap_or(0));
        Answer { body, cut_at, is_weights: true, ..answer }
    }

    fn content(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(file)).expect("the folder of the model is readable")
    }
}

// === impl Answer ===

impl Answer {
    fn of(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
