//! The transfer over HTTP: resumed where it broke off, bounded in length and in patience.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use ureq::http::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Timeout};

use super::archives::Archive;
use super::part_file::PartFile;
use crate::usage;

/// How often a redirect is followed.
const MOST_REDIRECTS: u32 = 5;

/// How long a transfer waits for what. The whole has no limit: the official server is slow at times.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub read: Duration,
    /// Before each further attempt after a broken transfer; with their end comes the error.
    pub waits: Vec<Duration>,
    /// An attempt that brings at least this many bytes makes the waits begin anew.
    pub progress: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            read: Duration::from_secs(30),
            waits: [1, 2, 4, 8, 16].map(Duration::from_secs).to_vec(),
            progress: 1 << 20,
        }
    }
}

/// Where an archive is transferred from: its official address, or a mirror's, given as a folder or as the file itself.
///
/// # Errors
/// A usage error for a mirror that is no http or https URL.
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
    /// Another attempt may bring the rest.
    Broken(String),
    /// Another attempt would end in the same way.
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
    pub bar: &'a ProgressBar,
}

impl Transfer<'_> {
    /// Goes on from what `part` holds until it has the archive's length.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, answers with something else than the archive, or breaks off too often.
    /// What arrived before is still in `part`, unless it cannot be of the archive.
    pub fn run(mut self) -> Result<()> {
        if self.part.len() > self.archive.bytes {
            self.part.clear()?;
        }
        let agent = agent(self.url, self.patience);
        let mut server = Server { reached: false, version: None };
        let mut waits = self.patience.waits.iter();
        while self.part.len() < self.archive.bytes {
            let before = self.part.len();
            match self.attempt(&agent, &mut server) {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Broken(reason)) => {
                    if self.part.len() >= before.saturating_add(self.patience.progress) {
                        waits = self.patience.waits.iter();
                    }
                    let Some(wait) = waits.next() else {
                        return Err(anyhow!("{}: {reason}", self.url));
                    };
                    self.bar.println(format!("{}: {reason}; next attempt in {wait:?}", self.url));
                    thread::sleep(*wait);
                }
            }
        }
        Ok(())
    }

    /// One request and the reading of its answer.
    fn attempt(&mut self, agent: &Agent, server: &mut Server) -> Result<(), Failure> {
        let kept = self.part.len();
        self.bar.set_position(kept);
        self.bar.reset_eta();
        let mut request = agent.get(self.url);
        if kept > 0 {
            request = request.header(RANGE, format!("bytes={kept}-"));
            if let Some(version) = &server.version {
                request = request.header(IF_RANGE, version);
            }
        }
        let response = request.call().map_err(|error| self.failure(error, server))?;
        server.reached = true;
        match response.status().as_u16() {
            206 if kept > 0 => self.check_range(&response, kept)?,
            200 => {
                self.check_whole(&response)?;
                // The server sends all of it again.
                self.part.clear()?;
                self.bar.set_position(0);
            }
            416 if kept > 0 => {
                // It has no such bytes: what is kept is of something else.
                self.part.clear()?;
                return Err(Failure::Broken("has less than what an earlier transfer brought".into()));
            }
            status @ (408 | 429 | 500..=599) => {
                return Err(Failure::Broken(format!("answers with status {status}")));
            }
            status => return Err(Failure::Final(anyhow!("{}: answers with status {status}", self.url))),
        }
        server.version = version(&response);
        self.receive(response.into_body(), server)
    }

    /// Refuses an answer that cannot be the whole archive before anything kept is given up for it.
    fn check_whole(&self, response: &Response<Body>) -> Result<()> {
        let Archive { file_name, bytes, .. } = self.archive;
        let mime_type = response.body().mime_type().unwrap_or_default();
        if mime_type.starts_with("text/") {
            return Err(anyhow!(
                "{}: answers with {mime_type} instead of {file_name}; another --mirror may have it",
                self.url
            ));
        }
        match response.body().content_length() {
            Some(length) if length != *bytes => Err(anyhow!(
                "{}: has {length} bytes, but {file_name} has {bytes}; another --mirror may have it",
                self.url
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a part that does not begin where the kept bytes end, or is of something of another length.
    fn check_range(&self, response: &Response<Body>, kept: u64) -> Result<()> {
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let range = range.unwrap_or("no range");
        let found = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
        let fits = found.is_some_and(|(positions, total)| {
            let start = positions.split('-').next().and_then(|start| start.parse::<u64>().ok());
            start == Some(kept) && (total == "*" || total.parse() == Ok(self.archive.bytes))
        });
        if fits {
            return Ok(());
        }
        Err(anyhow!(
            "{}: answers with {range:?} when asked for bytes {kept} to {} of {}",
            self.url,
            self.archive.bytes - 1,
            self.archive.bytes
        ))
    }

    fn receive(&mut self, body: Body, server: &Server) -> Result<(), Failure> {
        let total = self.archive.bytes;
        let mut body = body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failure(error.into(), server)),
            };
            if self.part.len() + read as u64 > total {
                self.part.clear()?;
                return Err(Failure::Final(anyhow!(
                    "{}: sends more than the {total} bytes of {}, which was thrown away; another --mirror may have it",
                    self.url,
                    self.archive.file_name
                )));
            }
            self.part.append(&buffer[..read])?;
            self.bar.set_position(self.part.len());
        }
        if self.part.len() < total {
            return Err(Failure::Broken(broken_off(self.part.len(), total)));
        }
        Ok(())
    }

    /// Whether another attempt is worth it. A server that was never reached in this run is told at once.
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
    /// Its name for this version of the file, to ask for the rest of the same version only.
    version: Option<String>,
}

fn broken_off(bytes: u64, total: u64) -> String {
    format!("broke off after {bytes} of {total} bytes")
}

/// The validator for If-Range: a strong entity tag, else the date of the last change.
fn version(response: &Response<Body>) -> Option<String> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let tag = header(ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| header(LAST_MODIFIED)).map(String::from)
}

fn agent(url: &str, patience: &Patience) -> Agent {
    let mut config = Agent::config_builder()
        .user_agent(concat!("records/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(MOST_REDIRECTS)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_per_write(Some(patience.read))
        .timeout_recv_response(Some(patience.read))
        .timeout_per_read(Some(patience.read));
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from));
    if host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
        // A proxy of the environment cannot reach this machine.
        config = config.proxy(None);
    }
    config.build().into()
}

#[cfg(test)]
mod tests {
    use super::super::archives::CIFAR10;
    use super::*;
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
