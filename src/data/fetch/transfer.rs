//! The transfer over HTTP: resumed where it broke off, with limits for length and waiting.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ureq::http::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use ureq::http::response::Parts;
use ureq::http::{HeaderMap, Uri};
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder, Timeout};

use super::part_file::PartFile;
use crate::data::archive::Archive;
use crate::data::progress::WorkProgress;
use crate::usage;

/// The most redirects in a row.
const MOST_REDIRECTS: u32 = 5;

/// The time limits of a transfer. Its whole duration has none, since the official server is slow at times.
#[derive(Clone, Debug)]
pub struct Patience {
    /// The wait for a connection.
    pub connect: Duration,
    /// The wait for the next bytes.
    pub read: Duration,
    /// The pause before each further attempt after a broken transfer; after the last attempt the transfer
    /// fails.
    pub waits: Vec<Duration>,
    /// After an attempt that gets at least this many bytes further than any before, the pauses start again
    /// with the first.
    pub progress: u64,
    /// The fewest bytes within [`Patience::slow_for`]; a slower attempt is broken off.
    pub least_bytes: u64,
    /// How long a transfer may be slower.
    pub slow_for: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            read: Duration::from_secs(30),
            waits: [1, 2, 4, 8, 16].map(Duration::from_secs).to_vec(),
            progress: 1 << 20,
            least_bytes: 60 << 10,
            slow_for: Duration::from_secs(60),
        }
    }
}

/// The URL of an archive: its official one, or that of a mirror, which may be given as a folder or as the
/// file itself.
///
/// # Errors
/// A usage error for a mirror that is not an http or https URL.
pub fn source_url(archive: &Archive, mirror: Option<&str>) -> Result<String> {
    let Some(mirror) = mirror else {
        return Ok(archive.url.to_string());
    };
    let uri: Option<Uri> = mirror.parse().ok();
    let web = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    let Some(uri) = web else {
        return Err(usage!("--mirror {mirror}: must be a URL that begins with http:// or https://"));
    };
    let names_a_file =
        uri.query().is_some() || [".tar.gz", ".tgz"].iter().any(|ending| uri.path().ends_with(ending));
    if names_a_file {
        return Ok(mirror.to_string());
    }
    Ok(format!("{}/{}", mirror.trim_end_matches('/'), archive.file_name))
}

/// Why an attempt ended early.
enum Failure {
    /// Another attempt may succeed.
    Broken(String),
    /// Another attempt would fail in the same way.
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Final(error)
    }
}

/// A transfer of `archive` from `url` into `part`.
pub struct Transfer<'a> {
    pub archive: &'a Archive,
    pub url: &'a str,
    pub part: &'a mut PartFile,
    pub patience: &'a Patience,
    pub progress: &'a dyn WorkProgress,
}

impl Transfer<'_> {
    /// Continues after the bytes in `part` until it has the archive's length.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses, answers with something other than the archive, or breaks off
    /// too often. Bytes that arrived before stay in `part`, unless they cannot belong to the archive.
    pub fn run(mut self) -> Result<()> {
        if self.part.len() > self.archive.bytes {
            self.part.clear()?;
        }
        let agent = agent(self.url, self.patience);
        let mut server = Server { reached: false, version: Version::default(), ranges_fit: true };
        let mut waits = self.patience.waits.iter();
        // Only bytes beyond the furthest position so far are progress; otherwise a server that always breaks
        // off would be asked forever.
        let mut furthest = self.part.len();
        while self.part.len() < self.archive.bytes {
            match self.attempt(&agent, &mut server) {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Broken(reason)) => {
                    if self.part.len() >= furthest.saturating_add(self.patience.progress) {
                        waits = self.patience.waits.iter();
                    }
                    furthest = furthest.max(self.part.len());
                    let Some(wait) = waits.next() else {
                        return Err(anyhow!("{}: {reason}", self.url));
                    };
                    self.progress.line(&format!("{}: {reason}; next attempt in {wait:?}", self.url));
                    thread::sleep(*wait);
                }
            }
        }
        Ok(())
    }

    /// Sends one request and reads its answer.
    fn attempt(&mut self, agent: &Agent, server: &mut Server) -> Result<(), Failure> {
        // The kept bytes are discarded only when the whole file begins to arrive.
        let kept = if server.ranges_fit { self.part.len() } else { 0 };
        self.progress.set(kept);
        let mut request = agent.get(self.url);
        if kept > 0 {
            request = request.header(RANGE, format!("bytes={kept}-"));
            if let Some(validator) = server.version.validator() {
                request = request.header(IF_RANGE, validator);
            }
        }
        let arriving = arriving(request);
        let head = self.head(&arriving, server)?;
        server.reached = true;
        match head.parts.status.as_u16() {
            206 if kept > 0 => {
                if let Err(reason) = self.check_range(&head, kept, server) {
                    server.ranges_fit = false;
                    return Err(Failure::Broken(format!("{reason}; asking for the whole")));
                }
            }
            200 => {
                self.check_whole(&head)?;
                // The server sends the whole file again.
                self.part.clear()?;
                self.progress.set(0);
            }
            416 if kept > 0 => {
                // The server's file is shorter, so the kept bytes belong to another file.
                server.ranges_fit = false;
                let reason = "has less than what an earlier transfer brought; asking for the whole";
                return Err(Failure::Broken(reason.into()));
            }
            status @ (408 | 429 | 500..=599) => {
                return Err(Failure::Broken(format!("answers with status {status}")));
            }
            status => return Err(Failure::Final(anyhow!("{}: answers with status {status}", self.url))),
        }
        server.version = Version::of(&head.parts.headers);
        self.receive(&arriving, server)
    }

    /// Waits for the head of an answer.
    fn head(&self, arriving: &Receiver<Arrival>, server: &Server) -> Result<Head, Failure> {
        let Patience { connect, read, slow_for, .. } = *self.patience;
        // Name lookup, connection, request and answer have their own limits; beyond them only redirects take
        // time.
        let limit = 2 * connect + 2 * read + slow_for;
        match arriving.recv_timeout(limit) {
            Ok(Arrival::Head(head)) => Ok(*head),
            Ok(Arrival::Failed(error)) => Err(self.failure(error, server)),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Broken(format!("no answer within {limit:?}"))),
            Ok(Arrival::Piece(_)) | Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Broken(broken_off(self.part.len(), self.archive.bytes)))
            }
        }
    }

    /// Refuses an answer that cannot be the whole archive, before the kept bytes are discarded.
    fn check_whole(&self, head: &Head) -> Result<()> {
        let Archive { file_name, bytes, .. } = self.archive;
        let mime_type = &head.mime_type;
        if mime_type.starts_with("text/") {
            return Err(anyhow!(
                "{}: answers with {mime_type} instead of {file_name}; another --mirror may have it",
                self.url
            ));
        }
        match head.length {
            Some(length) if length != *bytes => Err(anyhow!(
                "{}: has {length} bytes, but {file_name} has {bytes}; another --mirror may have it",
                self.url
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a part that does not begin where the kept bytes end, or belongs to another version of the
    /// file.
    fn check_range(&self, head: &Head, kept: u64, server: &Server) -> Result<(), String> {
        let total = self.archive.bytes;
        let text = head.parts.headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let text = text.unwrap_or("no range");
        let range = text.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
        let length = range.and_then(|(positions, whole)| {
            let (start, end) = positions.split_once('-')?;
            let (start, end) = (start.parse::<u64>().ok()?, end.parse::<u64>().ok()?);
            let fits = start == kept && (start..total).contains(&end);
            let of_this = whole == "*" || whole.parse() == Ok(total);
            (fits && of_this).then(|| end - start + 1)
        });
        if length.is_none() || head.length.is_some_and(|sent| Some(sent) != length) {
            return Err(format!(
                "answers with {text:?} when asked for bytes {kept} to {} of {total}",
                total - 1
            ));
        }
        if server.version.differs(&Version::of(&head.parts.headers)) {
            return Err("has changed since the transfer began".into());
        }
        Ok(())
    }

    /// Reads the body as long as it arrives fast enough.
    fn receive(&mut self, arriving: &Receiver<Arrival>, server: &Server) -> Result<(), Failure> {
        let Patience { least_bytes, slow_for, .. } = *self.patience;
        let (mut since, mut brought) = (Instant::now(), 0);
        loop {
            match arriving.recv_timeout(slow_for.saturating_sub(since.elapsed())) {
                Ok(Arrival::Piece(bytes)) => {
                    self.take(&bytes)?;
                    brought += bytes.len() as u64;
                }
                Ok(Arrival::Failed(error)) => return Err(self.failure(error, server)),
                Ok(Arrival::Head(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if since.elapsed() >= slow_for {
                if brought < least_bytes {
                    return Err(Failure::Broken(format!("sent only {brought} bytes within {slow_for:?}")));
                }
                (since, brought) = (Instant::now(), 0);
            }
        }
        let total = self.archive.bytes;
        if self.part.len() < total {
            return Err(Failure::Broken(broken_off(self.part.len(), total)));
        }
        Ok(())
    }

    /// Appends bytes of the body.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let total = self.archive.bytes;
        if self.part.len() + bytes.len() as u64 > total {
            self.part.clear()?;
            return Err(anyhow!(
                "{}: sends more than the {total} bytes of {}, which was thrown away; another --mirror may have it",
                self.url,
                self.archive.file_name
            ));
        }
        self.part.append(bytes)?;
        self.progress.set(self.part.len());
        Ok(())
    }

    /// Whether another attempt is worthwhile. A server that was never reached in this run is reported at
    /// once.
    fn failure(&self, error: ureq::Error, server: &Server) -> Failure {
        let Patience { connect, read, .. } = self.patience;
        let (reason, unreached) = match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                (format!("no connection within {connect:?}"), true)
            }
            ureq::Error::Timeout(_) => (format!("sent nothing for {read:?}"), false),
            ureq::Error::HostNotFound => ("the host is not known".into(), true),
            ureq::Error::ConnectionFailed => ("no connection".into(), true),
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    (format!("sent nothing for {read:?}"), false)
                }
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => (broken_off(self.part.len(), self.archive.bytes), false),
                _ => (error.to_string(), true),
            },
            ureq::Error::BodyStalled => (broken_off(self.part.len(), self.archive.bytes), false),
            ureq::Error::TooManyRedirects => {
                return Failure::Final(anyhow!("{}: redirects more than {MOST_REDIRECTS} times", self.url));
            }
            other => return Failure::Final(anyhow!("{}: {other}", self.url)),
        };
        if unreached && !server.reached {
            return Failure::Final(anyhow!(
                "{}: {reason}; look at the network, or name another source with --mirror",
                self.url
            ));
        }
        Failure::Broken(reason)
    }
}

/// What is known of the server.
struct Server {
    /// Whether it has answered in this run.
    reached: bool,
    /// The version of the file in transfer.
    version: Version,
    /// Whether all its answers to requests for the rest were as requested.
    ranges_fit: bool,
}

/// The events of a request in order: the head, then pieces of the body, or a failure at any point.
enum Arrival {
    Head(Box<Head>),
    Piece(Vec<u8>),
    Failed(ureq::Error),
}

/// The head of an answer.
struct Head {
    parts: Parts,
    mime_type: String,
    /// Length of the body in bytes, if the server says so.
    length: Option<u64>,
}

/// Sends a request; the end of the answer closes the channel.
///
/// It runs in its own thread, so that the time limits hold whatever the library is waiting for: the length of
/// a chunk that comes digit by digit, or the endless body of a redirect. A thread whose channel is closed
/// ends with its next piece.
fn arriving(request: RequestBuilder<WithoutBody>) -> Receiver<Arrival> {
    /// The most pieces waiting to be written.
    const MOST_WAITING: usize = 16;
    let (sender, receiver) = sync_channel(MOST_WAITING);
    thread::spawn(move || {
        let failure = exchange(request, &sender).err();
        // Sending fails when the receiver is gone, which is fine.
        failure.map(|error| sender.send(Arrival::Failed(error)))
    });
    receiver
}

fn exchange(request: RequestBuilder<WithoutBody>, sender: &SyncSender<Arrival>) -> Result<(), ureq::Error> {
    let (parts, body) = request.call()?.into_parts();
    let mime_type = body.mime_type().unwrap_or_default().to_string();
    let head = Head { parts, mime_type, length: body.content_length() };
    let mut is_heard = sender.send(Arrival::Head(Box::new(head))).is_ok();
    let mut body = body.into_reader();
    let mut buffer = vec![0; 1 << 16];
    while is_heard {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => is_heard = sender.send(Arrival::Piece(buffer[..read].to_vec())).is_ok(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn broken_off(bytes: u64, total: u64) -> String {
    format!("broke off after {bytes} of {total} bytes")
}

/// The validators that a server sends for a version of a file.
#[derive(Default)]
struct Version {
    tag: Option<String>,
    date: Option<String>,
}

impl Version {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(String::from);
        Self { tag: header(ETAG), date: header(LAST_MODIFIED) }
    }

    /// The value for If-Range: a strong entity tag, else the date of the last change.
    fn validator(&self) -> Option<&str> {
        let strong = self.tag.as_deref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.date.as_deref())
    }

    /// Whether the versions certainly differ; the servers behind one host name may disagree in their dates.
    fn differs(&self, other: &Self) -> bool {
        match (&self.tag, &other.tag) {
            (Some(one), Some(two)) => one.trim_start_matches("W/") != two.trim_start_matches("W/"),
            _ => self.date.is_some() && other.date.is_some() && self.date != other.date,
        }
    }
}

fn agent(url: &str, patience: &Patience) -> Agent {
    let mut config = Agent::config_builder()
        .user_agent(concat!("records/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(MOST_REDIRECTS)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_send_request(Some(patience.read))
        .timeout_per_write(Some(patience.read))
        .timeout_recv_response(Some(patience.read))
        .timeout_per_read(Some(patience.read));
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from));
    if host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
        // A proxy from the environment cannot reach this machine.
        config = config.proxy(None);
    }
    config.build().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::registry::cifar::CIFAR10_ARCHIVE as CIFAR10;
    use crate::error::exit_code;

    #[test]
    fn a_mirror_is_a_folder_or_the_file_itself() {
        let url = |mirror| source_url(&CIFAR10, mirror).unwrap();
        assert_eq!(url(None), CIFAR10.url);
        for folder in ["http://a.example", "http://a.example/"] {
            assert_eq!(url(Some(folder)), "http://a.example/cifar-10-binary.tar.gz");
        }
        assert_eq!(url(Some("https://a.example/x/y")), "https://a.example/x/y/cifar-10-binary.tar.gz");
        for file in ["http://a.example/c10.tar.gz", "http://a.example/C.tgz", "http://a.example/get?id=3"] {
            assert_eq!(url(Some(file)), file);
        }
        for bad in ["", "a.example", "ftp://a.example/", "file:///data", "http://", "http://a b/", "-"] {
            let error = source_url(&CIFAR10, Some(bad)).unwrap_err();
            assert_eq!(exit_code(&error), 2, "{bad}");
            assert!(error.to_string().starts_with(&format!("--mirror {bad}: must be")), "{error}");
        }
    }
}
