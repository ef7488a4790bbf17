//! An HTTP server on the loopback address that misbehaves according to a script with one turn for each
//! connection.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The strong entity tag of the file.
pub const TAG: &str = "\"first\"";

/// What the server does with a connection.
#[derive(Clone, Debug)]
pub enum Turn {
    /// Sends the file, or the part that is asked for.
    Honest,
    /// As [`Turn::Honest`], but closes after that many bytes of the body.
    BreaksOff(usize),
    /// As [`Turn::Honest`], but sends nothing more after that many bytes of the body, and stays connected.
    Stalls(usize),
    /// Sends the whole file whatever part is requested.
    IgnoresRange,
    /// Sends nothing, and stays connected.
    Silent,
    /// Closes without an answer.
    Closes,
    /// Sends exactly this and closes: the head without its last empty line, and the body.
    Says(String, Vec<u8>),
    /// Sends the first bytes, then the second over and over with that pause, for as long as the client
    /// listens.
    Endless(Vec<u8>, Vec<u8>, Duration),
}

/// Shorthand for [`Turn::Says`].
pub fn says(head: &str, body: &[u8]) -> Turn {
    Turn::Says(head.to_string(), body.to_vec())
}

/// The request of a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

/// A server that runs until the test process ends.
pub struct Server {
    /// Its address, `http://127.0.0.1:PORT`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves `file` by `script`; a connection after the end of the script is closed, but counted.
    pub fn start(file: Vec<u8>, script: &[Turn]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, mut script) = (asked.clone(), VecDeque::from(script.to_vec()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let turn = script.pop_front().unwrap_or(Turn::Closes);
                let (stream, file, record) = (stream.unwrap(), file.clone(), record.clone());
                // The client may close the connection early, which is not a failure of the server.
                let is_endless = matches!(turn, Turn::Endless(..));
                let answer = move || drop(answer(stream, &turn, &file, &record));
                if is_endless {
                    thread::spawn(answer);
                } else {
                    answer();
                }
            }
        });
        Self { url, asked }
    }

    /// The requests of all connections, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The beginnings of the requested parts, in order; none for a request for the whole file.
    pub fn starts(&self) -> Vec<Option<usize>> {
        self.asked().iter().map(|asked| asked.range.as_deref().map(start_of)).collect()
    }
}

fn start_of(range: &str) -> usize {
    range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
}

fn answer(
    mut stream: TcpStream,
    turn: &Turn,
    file: &[u8],
    record: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let asked = read_request(&stream)?;
    record.lock().unwrap().push(asked.clone());
    let most = match turn {
        Turn::BreaksOff(bytes) | Turn::Stalls(bytes) => *bytes,
        _ => usize::MAX,
    };
    match turn {
        Turn::Closes => return Ok(()),
        Turn::Endless(beginning, piece, pause) => {
            stream.write_all(beginning)?;
            loop {
                stream.write_all(piece)?;
                thread::sleep(*pause);
            }
        }
        Turn::Silent => return wait_for_close(stream),
        Turn::Says(head, body) => {
            stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
            stream.write_all(body)?;
        }
        Turn::Honest | Turn::BreaksOff(_) | Turn::Stalls(_) | Turn::IgnoresRange => {
            let start = asked.range.as_deref().map(start_of).filter(|_| !matches!(turn, Turn::IgnoresRange));
            let (status, range) = match start {
                Some(start) => (
                    "206 Partial Content",
                    format!("Content-Range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len()),
                ),
                None => ("200 OK", String::new()),
            };
            let body = &file[start.unwrap_or(0)..];
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/x-gzip\r\nETag: {TAG}\r\n{range}Content-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            )?;
            stream.write_all(&body[..most.min(length)])?;
        }
    }
    stream.flush()?;
    if matches!(turn, Turn::Stalls(_)) { wait_for_close(stream) } else { Ok(()) }
}

/// The request's first line and the headers that matter here.
fn read_request(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut asked = Asked::default();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            asked.path = rest.split(' ').next().unwrap().to_string();
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = Some(value.to_string()),
                "if-range" => asked.if_range = Some(value.to_string()),
                _ => {}
            }
        }
    }
    Ok(asked)
}

fn wait_for_close(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.read(&mut [0]).map(|_| ())
}
