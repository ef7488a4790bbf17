//! The report of a run over HTTP on this machine alone: one page, made anew for every request.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

use super::page::page;
use super::run_view::RunView;
use crate::usage;

/// Bytes of a request's head at most.
const LARGEST_HEAD: usize = 8 << 10;

/// How long a client may take for its request or our answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes a port of the loopback interface; 0 takes any that is free.
///
/// # Errors
/// A usage error if the port is taken or not allowed.
pub fn listen(port: u16) -> Result<(TcpListener, SocketAddr)> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|error| usage!("--port {port}: cannot be taken: {error}; choose another, or 0 for any"))
}

/// Answers requests for the report of `view`, one after the other, until the process ends.
pub fn serve(listener: &TcpListener, address: SocketAddr, view: &mut RunView) {
    for stream in listener.incoming().flatten() {
        // A client that goes away is no concern of ours.
        let _ = answer(stream, address, view);
    }
}

fn answer(mut stream: TcpStream, address: SocketAddr, view: &mut RunView) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let (status, body) = match request(&head, address) {
        Ok(()) => {
            view.refresh();
            ("200 OK", page(view))
        }
        Err(status) => (status, format!("{status}\n")),
    };
    let kind = if status.starts_with("200") { "text/html" } else { "text/plain" };
    // The page runs nothing and asks for nothing: the browser holds it to that.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

/// A request up to its empty line.
fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let started = std::time::Instant::now();
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut part)?;
        if length == 0 || head.len() + length > LARGEST_HEAD || started.elapsed() > PATIENCE {
            return Err(ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&part[..length]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whether a request is for the report, from a page of this address: a page from elsewhere that has its own
/// name point here (DNS rebinding) asks with another `Host`.
fn request(head: &str, address: SocketAddr) -> Result<(), &'static str> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let host = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let port = address.port();
    if ![format!("127.0.0.1:{port}"), format!("localhost:{port}")].iter().any(|own| host == Some(own)) {
        return Err("403 Forbidden");
    }
    match (method, path) {
        ("GET", "/" | "/report.html") => Ok(()),
        ("GET", _) => Err("404 Not Found"),
        _ => Err("405 Method Not Allowed"),
    }
}
