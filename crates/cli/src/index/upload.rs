//! Sends pictures over one `IndexItems` stream after another until all are acknowledged.
//!
//! A stream that breaks is opened anew, and what was not acknowledged goes again: ids are content
//! hashes, so that sending twice stores once. The task that drives it does nothing else than wait;
//! what it does next is decided by [`Window`].

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clipmesh_proto::code;
use clipmesh_proto::ids::ContentHash;
use clipmesh_proto::search::v1 as search;
use clipmesh_proto::search::v1::index_items_response::Result as Answer;
use futures::future::LocalBoxFuture;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use crate::client::Mesh;
use crate::error::{Error, is_transport};
use crate::index::metadata::Fields;
use crate::index::plan::Planned;
use crate::index::report::Report;
use crate::index::window::{Picture, Window};

/// Streams in a row that may break without a single acknowledgement: with the waits between them
/// 36 seconds, in which a service that was restarted has read its model again.
const MAX_BREAKS: u32 = 8;

/// How long the mesh may take to end a stream on which all is said.
const GOODBYE: Duration = Duration::from_secs(1);

/// Messages between the window and the socket. Few: the window is what bounds memory.
const SEND_AHEAD: usize = 4;

/// Stores pictures in one collection.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    /// Without a time-out for whole calls, for a stream lasts as long as there are pictures.
    pub(crate) mesh: Mesh,
    pub(crate) collection: String,
    pub(crate) fields: Arc<Fields>,
    /// Longest wait for the next acknowledgement.
    pub(crate) patience: Duration,
    /// How long to wait before a stream is opened again, by how many broke in a row before.
    pub(crate) backoff: fn(u32) -> Duration,
    pub(crate) window: Window,
    pub(crate) report: &'a mut Report,
}

/// Why a stream ended before its pictures did.
enum Ended {
    /// It may go better next time.
    Broken(Status),
    /// It will not.
    Fatal(Error),
}

type Opened = Result<Response<Streaming<search::IndexItemsResponse>>, Status>;

/// The answering half of a stream. It opens only once something is sent.
pub(super) struct Answers {
    opening: LocalBoxFuture<'static, Opened>,
    open: Option<Streaming<search::IndexItemsResponse>>,
}

// === impl Upload ===

impl Upload<'_> {
    /// Stores all `pictures`. Those that can't be taken are reported and cost nothing else.
    pub(crate) async fn run<S>(mut self, pictures: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Planned, Error>>,
    {
        let mut pictures = std::pin::pin!(pictures.fuse());
        let mut breaks = 0;
        loop {
            if !self.has_something_to_send(pictures.as_mut()).await? {
                return Ok(());
            }
            let before = self.window.settled_count();
            let Err(ended) = self.stream(pictures.as_mut()).await else { continue };
            let status = match ended {
                Ended::Fatal(error) => return Err(error),
                Ended::Broken(status) => status,
            };
            if is_too_long(&status) {
                self.drop_longest(status)?;
                breaks = 0;
                continue;
            }
            breaks = if self.window.settled_count() > before { 1 } else { breaks + 1 };
            self.resume_later(status, breaks).await?;
        }
    }

    /// Waits until there is a picture to send; `false` when all are stored. No stream is opened
    /// for nothing.
    async fn has_something_to_send<S>(&mut self, mut pictures: Pin<&mut S>) -> Result<bool, Error>
    where
        S: Stream<Item = Result<Planned, Error>>,
    {
        while self.window.is_empty() {
            match pictures.next().await {
                Some(planned) => self.plan(planned?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Sends and listens over one stream until everything is stored or the stream breaks.
    async fn stream<S>(&mut self, mut pictures: Pin<&mut S>) -> Result<(), Ended>
    where
        S: Stream<Item = Result<Planned, Error>> + futures::stream::FusedStream,
    {
        let (sender, mut answers) = open(&self.mesh);
        let mut last_answer = Instant::now();
        loop {
            let is_exhausted = pictures.is_terminated();
            if is_exhausted && self.window.is_empty() {
                drop(sender);
                answers.end().await;
                return Ok(());
            }
            let has_room = self.window.has_room() && !is_exhausted;
            let is_closed = sender.is_closed();
            let is_ready = self.window.is_ready(Instant::now());
            let is_awaiting = self.window.is_awaiting();
            let wake = self.window.wake();
            tokio::select! {
                answer = answers.next() => {
                    last_answer = Instant::now();
                    self.settle(answer.map_err(Ended::Broken)?);
                }
                permit = sender.reserve(), if is_ready && !is_closed => {
                    // The call has ended; why is in its answer.
                    let Ok(permit) = permit else { continue };
                    if !is_awaiting {
                        last_answer = Instant::now();
                    }
                    if let Some((key, picture)) = self.window.next_ready(Instant::now()) {
                        permit.send(self.request(key, picture));
                    }
                }
                planned = pictures.next(), if has_room => {
                    if let Some(planned) = planned {
                        self.plan(planned.map_err(Ended::Fatal)?);
                    }
                }
                () = sleep_until(wake.unwrap_or(last_answer)), if wake.is_some() && !is_ready => {}
                () = sleep_until(last_answer + self.patience), if is_awaiting || is_closed => {
                    let waited = self.patience.as_secs_f64();
                    let message = format!("no acknowledgement for {waited:.0} s");
                    return Err(Ended::Broken(Status::deadline_exceeded(message)));
                }
            }
        }
    }

    fn plan(&mut self, planned: Planned) {
        match planned {
            Planned::Send(picture) => self.window.admit(picture),
            Planned::Known => self.report.known(),
            Planned::Duplicate => self.report.duplicate(),
            Planned::Left => self.report.left(),
            Planned::Failed(path, reason) => self.report.failed(path.display(), reason),
        }
    }

    fn settle(&mut self, answer: search::IndexItemsResponse) {
        let outcome = match answer.result {
            Some(Answer::Indexed(indexed)) => Ok(indexed.outcome()),
            Some(Answer::Error(error)) => Err(code::from_rpc(&error)),
            None => Err(Status::internal("the acknowledgement is empty")),
        };
        if let Some(settled) = self.window.settle(answer.key, outcome, Instant::now()) {
            self.report.settled(settled);
        }
    }

    /// Gets ready for another stream, or gives up.
    async fn resume_later(&mut self, status: Status, breaks: u32) -> Result<(), Error> {
        if !is_broken(&status) || breaks > MAX_BREAKS {
            return Err(self.mesh.error(status));
        }
        self.window.rewind();
        if breaks == 1 {
            self.report.note("the connection was lost; trying again");
        }
        let delay = (self.backoff)(breaks - 1);
        sleep(code::retry_after(&status).map_or(delay, |asked| asked.max(delay))).await;
        Ok(())
    }

    /// Gets ready for another stream without the picture that ended this one.
    fn drop_longest(&mut self, status: Status) -> Result<(), Error> {
        match self.window.drop_longest(&status) {
            Some(settled) => self.report.settled(settled),
            None => return Err(self.mesh.error(status)),
        }
        self.window.rewind();
        Ok(())
    }

    fn request(&self, key: u64, picture: Picture) -> search::IndexItemsRequest {
        let item = new_item(&self.fields, &picture.path, picture.hash);
        search::IndexItemsRequest {
            collection: self.collection.clone(),
            key,
            item: Some(search::NewItem { image: picture.image, ..item }),
        }
    }
}

// === impl Answers ===

impl Answers {
    /// The next acknowledgement. Loses none when it is dropped.
    pub(super) async fn next(&mut self) -> Result<search::IndexItemsResponse, Status> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert((&mut self.opening).await?.into_inner()),
        };
        match open.message().await? {
            Some(answer) => Ok(answer),
            None => Err(Status::unavailable("the mesh ended the stream early")),
        }
    }

    /// Lets the call come to its end, so that the mesh doesn't count it as cancelled. All that
    /// matters has been said by then, so that neither its status nor a time-out does.
    pub(super) async fn end(mut self) {
        let Some(open) = &mut self.open else { return };
        let rest = async { while let Ok(Some(_)) = open.message().await {} };
        if timeout(GOODBYE, rest).await.is_err() {
            tracing::debug!("the mesh did not end the stream");
        }
    }
}

/// Gets a stream ready; it opens with what is sent first.
pub(super) fn open(mesh: &Mesh) -> (mpsc::Sender<search::IndexItemsRequest>, Answers) {
    let (sender, receiver) = mpsc::channel(SEND_AHEAD);
    let mut items = mesh.items();
    let opening = Box::pin(async move { items.index_items(ReceiverStream::new(receiver)).await });
    (sender, Answers { opening, open: None })
}

/// What is to be stored of a picture, but for its bytes.
pub(crate) fn new_item(fields: &Fields, path: &Path, hash: ContentHash) -> search::NewItem {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let filename = path.file_name().unwrap_or_default();
    search::NewItem {
        id: hash.to_string(),
        image: bytes::Bytes::new(),
        uri: place.to_string_lossy().into_owned(),
        filename: filename.to_string_lossy().into_owned(),
        metadata: fields.of(path),
        ..search::NewItem::default()
    }
}

/// Whether the way to the mesh failed, or the mesh for now, and not the request.
pub(crate) fn is_broken(status: &Status) -> bool {
    let is_passing = matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
    );
    is_passing || is_transport(status)
}

/// Whether the mesh refused to read a message because of its length.
fn is_too_long(status: &Status) -> bool {
    status.code() == Code::OutOfRange
}

#[cfg(test)]
mod tests;
