use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use object_store::aws::AmazonS3Builder;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn id(text: &str) -> ItemId {
    ItemId::try_from(text.to_owned()).expect("an id")
}

fn in_folder(path: &Path) -> Blobs {
    Blobs::open(&Config::default(), path).expect("usable")
}

async fn files_come_and_go(blobs: &Blobs) {
    // An id that would be a way out of the folder.
    let (id, hash) = (id("../../a/b"), ContentHash::of(b"picture"));
    let name = Name { uid: "c1", id: &id, content_hash: &hash };
    let get = async |name: &Name<'_>, file| blobs.get(name, file).await.expect("an answer");
    assert_eq!(get(&name, File::Thumbnail).await, None, "nothing yet");
    blobs.put(&name, File::Thumbnail, Bytes::from_static(b"small")).await.expect("written");
    let small = Some(Bytes::from_static(b"small"));
    assert_eq!(get(&name, File::Thumbnail).await, small, "there");
    assert_eq!(get(&name, File::Original).await, None, "that alone");
    blobs.put(&name, File::Original, Bytes::from_static(b"large")).await.expect("written");
    assert_eq!(get(&name, File::Thumbnail).await, small, "beside it");

    let other = ContentHash::of(b"other picture");
    let other = Name { content_hash: &other, ..name.clone() };
    assert_eq!(get(&other, File::Original).await, None, "of one picture only");
    blobs.put(&other, File::Original, Bytes::from_static(b"other")).await.expect("written");
    blobs.delete(std::slice::from_ref(&name)).await.expect("deleted");
    for file in [File::Thumbnail, File::Original] {
        assert_eq!(get(&name, file).await, None, "{file:?} is gone");
    }
    assert!(get(&other, File::Original).await.is_some(), "and no other");
    blobs.delete(&[name, other]).await.expect("deleting twice is no error");
    blobs.delete(&[]).await.expect("nothing to delete is no error");
}

async fn a_collection_goes_as_a_whole(blobs: &Blobs) {
    let hash = ContentHash::of(b"picture");
    let ids = ["a", "b", "c"].map(id);
    let uids = ["1", "2", "3"].map(|digit| digit.repeat(UID_DIGITS));
    let [gone, known, unknown] = uids.each_ref().map(String::as_str);
    for uid in [gone, known, unknown, "holiday"] {
        for id in &ids {
            let name = Name { uid, id, content_hash: &hash };
            let bytes = Bytes::from_static(b"small");
            blobs.put(&name, File::Thumbnail, bytes).await.expect("written");
        }
    }
    blobs.delete_collection(gone).await.expect("deleted");
    blobs.retain(&[known.to_owned()]).await.expect("cleared away");
    // The last folder is somebody else's.
    for (uid, is_there) in [(gone, false), (known, true), (unknown, false), ("holiday", true)] {
        let name = Name { uid, id: &ids[0], content_hash: &hash };
        let found = blobs.get(&name, File::Thumbnail).await.expect("an answer");
        assert_eq!(found.is_some(), is_there, "files of {uid}");
    }
    blobs.delete_collection(gone).await.expect("nothing to delete is no error");
}

#[tokio::test]
async fn a_folder_keeps_files() {
    let folder = TempDir::new().expect("a temporary folder");
    files_come_and_go(&in_folder(&folder.path().join("thumbnails"))).await;
    a_collection_goes_as_a_whole(&in_folder(folder.path())).await;
    let url = format!("file://{}", folder.path().join("elsewhere").display());
    let config = Config { url: Some(url), sync_writes: true, ..Config::default() };
    let blobs = Blobs::open(&config, Path::new("/nowhere")).expect("usable");
    files_come_and_go(&blobs).await;
    assert!(folder.path().join("elsewhere").is_dir(), "the address wins over the data folder");
}

#[tokio::test]
async fn a_file_that_can_not_be_deleted_does_not_keep_the_others() {
    let folder = TempDir::new().expect("a temporary folder");
    let blobs = in_folder(folder.path());
    // More than are deleted at once.
    let ids: Vec<_> = (0..40).map(|i| id(&i.to_string())).collect();
    let hash = ContentHash::of(b"picture");
    let names: Vec<_> = ids.iter().map(|id| Name { uid: "c", id, content_hash: &hash }).collect();
    for name in &names[1..] {
        let bytes = Bytes::from_static(b"small");
        blobs.put(name, File::Thumbnail, bytes).await.expect("written");
    }
    // A folder, which is none of its files.
    let first = folder.path().join(names[0].location(File::Thumbnail).as_ref());
    std::fs::create_dir_all(first.join("inside")).expect("made");
    assert!(blobs.delete(&names).await.is_err(), "the fault is told");
    for name in &names[1..] {
        let left = blobs.get(name, File::Thumbnail).await.expect("an answer");
        assert_eq!(left, None, "`{}` is gone", name.id);
    }
}

#[tokio::test]
async fn a_bucket_keeps_files() {
    let bucket = Bucket::start().await;
    files_come_and_go(&bucket.blobs("a/b")).await;
    assert!(bucket.keys().is_empty(), "all are gone: {:?}", bucket.keys());
    a_collection_goes_as_a_whole(&bucket.blobs("a/b")).await;
    let keys = bucket.keys();
    assert!(keys.iter().all(|key| key.starts_with("a/b/")), "all with the prefix: {keys:?}");
    assert_eq!(keys.len(), 6, "those of two collections");
    a_collection_goes_as_a_whole(&bucket.blobs("")).await;
}

#[tokio::test]
async fn a_bucket_that_fails_for_a_moment_is_asked_again() {
    let bucket = Bucket::start().await;
    let blobs = bucket.blobs("");
    let (id, hash) = (id("a"), ContentHash::of(b"picture"));
    let name = Name { uid: "c", id: &id, content_hash: &hash };
    bucket.fail_next(2);
    blobs.put(&name, File::Original, Bytes::from_static(b"large")).await.expect("written at last");
    bucket.fail_next(1);
    let found = blobs.get(&name, File::Original).await.expect("read at last");
    assert_eq!(found, Some(Bytes::from_static(b"large")), "what was written");
    let hasty = bucket.blobs_that_retry_for("", Duration::ZERO);
    bucket.fail_next(1);
    let failed = hasty.get(&name, File::Original).await;
    assert!(failed.is_err(), "a fault is told, and is not taken for a missing file: {failed:?}");
}

/// A bucket that speaks as much of S3's protocol as is used here, without looking at signatures.
struct Bucket {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Calls that are to fail.
    faults: usize,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Bucket {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { url, state }
    }

    fn blobs(&self, prefix: &str) -> Blobs {
        // Longer than any machine takes to repeat a call.
        self.blobs_that_retry_for(prefix, Duration::from_secs(60))
    }

    fn blobs_that_retry_for(&self, prefix: &str, retry_timeout: Duration) -> Blobs {
        // As it would be taken from the environment.
        let builder = AmazonS3Builder::new()
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_region("here")
            .with_access_key_id("key")
            .with_secret_access_key("secret");
        // One that is chosen already is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let config = Config { retry_timeout, ..Config::default() };
        let store = open::s3(builder, "pictures", prefix, &config).expect("opened");
        Blobs { store, keep_originals: true }
    }

    fn fail_next(&self, calls: usize) {
        self.state.lock().expect("no panic").faults = calls;
    }

    fn keys(&self) -> Vec<String> {
        self.state.lock().expect("no panic").objects.keys().cloned().collect()
    }
}

/// Answers the calls of one connection.
async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut received = VecDeque::new();
    while let Some(request) = Request::read(&mut socket, &mut received).await {
        let (status, body) = answer(&request, &mut state.lock().expect("no panic"));
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\netag: \"e\"\r\n\
             last-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
            body.len()
        );
        if socket.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

fn answer(request: &Request, state: &mut State) -> (u16, Vec<u8>) {
    if state.faults > 0 {
        state.faults -= 1;
        return (503, Vec::new());
    }
    let key = request.path.strip_prefix("/pictures").unwrap_or_default().trim_start_matches('/');
    match request.method.as_str() {
        "PUT" => {
            state.objects.insert(key.to_owned(), request.body.clone());
            (200, Vec::new())
        }
        "GET" if request.query.contains_key("list-type") => {
            (200, list(request, state).into_bytes())
        }
        "GET" => match state.objects.get(key) {
            Some(bytes) => (200, bytes.clone()),
            None => (404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        },
        "POST" if request.query.contains_key("delete") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            let mut deleted = String::new();
            for (key, _) in keys {
                state.objects.remove(key);
                deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
            (200, format!("<DeleteResult>{deleted}</DeleteResult>").into_bytes())
        }
        _ => (400, Vec::new()),
    }
}

fn list(request: &Request, state: &State) -> String {
    let prefix = request.query.get("prefix").map_or("", String::as_str);
    let is_flat = !request.query.contains_key("delimiter");
    let (mut contents, mut folders) = (String::new(), Vec::new());
    for key in state.objects.keys().filter(|key| key.starts_with(prefix)) {
        match key[prefix.len()..].split_once('/') {
            Some((folder, _)) if !is_flat => folders.push(format!("{prefix}{folder}/")),
            Some(_) | None => {
                contents += &format!(
                    "<Contents><Key>{key}</Key><Size>1</Size>\
                     <LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>"
                );
            }
        }
    }
    folders.dedup();
    let folder =
        |folder: &String| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
    let folders: String = folders.iter().map(folder).collect();
    format!(
        "<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>"
    )
}

impl Request {
    async fn read(socket: &mut TcpStream, received: &mut VecDeque<u8>) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(next(socket, received).await?);
        }
        let head = String::from_utf8(head).ok()?;
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let length = headers
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .find_map(|(_, value)| value.parse().ok());
        let mut body = Vec::new();
        for _ in 0..length.unwrap_or(0_usize) {
            body.push(next(socket, received).await?);
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")));
        Some(Self { method, path: path.to_owned(), query: query.collect(), body })
    }
}

async fn next(socket: &mut TcpStream, received: &mut VecDeque<u8>) -> Option<u8> {
    if received.is_empty() {
        let mut buffer = vec![0; 4096];
        let length = socket.read(&mut buffer).await.ok()?;
        received.extend(&buffer[..length]);
    }
    received.pop_front()
}
