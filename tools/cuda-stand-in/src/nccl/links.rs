//! The connections between the processes of a communicator: how they find each other, and messages.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The connections of a process, one to each of the others.
pub struct Links {
    pub rank: usize,
    streams: Vec<Option<TcpStream>>,
    /// Messages sent to and received from each.
    counts: Vec<[u64; 2]>,
}

/// What a process says when it comes: its rank, how many there are, and where it listens.
type Greeting = [u32; 3];

fn words(bytes: [u8; 12]) -> Greeting {
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[4 * at + i]));
    [word(0), word(1), word(2)]
}

fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    Ok((listener, port))
}

fn prepared(stream: TcpStream, limit: Duration) -> Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn accept(listener: &TcpListener, began: Instant, limit: Duration) -> Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return prepared(stream, limit),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if began.elapsed() > limit => return Err(ErrorKind::TimedOut.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn connect(port: u16, limit: Duration) -> Result<TcpStream> {
    prepared(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?, limit)
}

/// Listens, in a thread of its own, for the processes of a communicator, and tells each where the others
/// listen; returns where they are to come.
pub fn found(limit: Duration) -> Result<u16> {
    let (listener, port) = listen()?;
    std::thread::spawn(move || {
        let began = Instant::now();
        let mut come: Vec<(Greeting, TcpStream)> = Vec::new();
        while come.first().is_none_or(|([_, size, _], _)| come.len() < *size as usize) {
            let Ok(mut stream) = accept(&listener, began, limit) else { return };
            let Ok(greeting) = read(&mut stream).map(words) else { return };
            come.push((greeting, stream));
        }
        come.sort_by_key(|([rank, ..], _)| *rank);
        let size = come.len() as u32;
        // Whoever is no such process finds the connection closed.
        if come.iter().zip(0..).any(|(([rank, of, _], _), number)| *rank != number || *of != size) {
            return;
        }
        let ports: Vec<u8> = come.iter().flat_map(|([.., port], _)| port.to_le_bytes()).collect();
        for (_, stream) in &mut come {
            let _ = stream.write_all(&ports);
        }
    });
    Ok(port)
}

impl Links {
    /// Joins the others, who come to the same place, and waits for them.
    pub fn join(root: u16, rank: usize, size: usize, limit: Duration) -> Result<Self> {
        let began = Instant::now();
        let (listener, port) = listen()?;
        let mut at_root = connect(root, limit)?;
        let greeting = [rank as u32, size as u32, u32::from(port)].map(u32::to_le_bytes);
        at_root.write_all(greeting.as_flattened())?;
        let mut ports = vec![0; 4 * size];
        at_root.read_exact(&mut ports)?;
        let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
        for (other, port) in ports.as_chunks::<4>().0.iter().enumerate().take(rank) {
            let port = u16::try_from(u32::from_le_bytes(*port)).map_err(Error::other)?;
            let mut stream = connect(port, limit)?;
            stream.write_all(&(rank as u32).to_le_bytes())?;
            streams[other] = Some(stream);
        }
        for _ in rank + 1..size {
            let mut stream = accept(&listener, began, limit)?;
            let other = u32::from_le_bytes(read(&mut stream)?) as usize;
            *streams.get_mut(other).ok_or(ErrorKind::InvalidData)? = Some(stream);
        }
        Ok(Self { rank, streams, counts: vec![[0; 2]; size] })
    }

    /// Processes.
    pub fn size(&self) -> usize {
        self.streams.len()
    }

    /// Ends all connections.
    pub fn close(&mut self) {
        self.streams.iter_mut().for_each(|stream| *stream = None);
    }

    /// Sends messages to others, receives messages of these lengths from others, and waits until the others
    /// have received what was sent.
    ///
    /// # Errors
    /// The other has closed the connection or says nothing for longer than the limit; invalid data where its
    /// message has another length, or is another one.
    pub fn exchange(&mut self, sent: &[Vec<Vec<u8>>], lengths: &[Vec<usize>]) -> Result<Vec<Vec<Vec<u8>>>> {
        let Self { streams, counts, .. } = self;
        let of = |stream: &Option<TcpStream>| {
            stream.as_ref().ok_or(Error::from(ErrorKind::NotConnected)).and_then(TcpStream::try_clone)
        };
        let mut writers = Vec::new();
        for (other, messages) in sent.iter().enumerate().filter(|(_, messages)| !messages.is_empty()) {
            let mut bytes = Vec::new();
            for message in messages {
                bytes.extend(counts[other][0].to_le_bytes());
                bytes.extend((message.len() as u64).to_le_bytes());
                bytes.extend(message);
                counts[other][0] += 1;
            }
            let mut stream = of(&streams[other])?;
            writers.push(std::thread::spawn(move || stream.write_all(&bytes)));
        }
        let mut received = vec![Vec::new(); lengths.len()];
        for (other, lengths) in lengths.iter().enumerate() {
            for &length in lengths {
                let mut stream = of(&streams[other])?;
                let head: [[u8; 8]; 2] = [read(&mut stream)?, read(&mut stream)?];
                if head.map(u64::from_le_bytes) != [counts[other][1], length as u64] {
                    return Err(ErrorKind::InvalidData.into());
                }
                counts[other][1] += 1;
                let mut message = vec![0; length];
                stream.read_exact(&mut message)?;
                received[other].push(message);
            }
        }
        for writer in writers {
            writer.join().map_err(|_| ErrorKind::Other)??;
        }
        // A word back for what was received, and one for what was sent.
        for other in (0..lengths.len()).filter(|&other| !lengths[other].is_empty()) {
            of(&streams[other])?.write_all(&[1])?;
        }
        for other in (0..sent.len()).filter(|&other| !sent[other].is_empty()) {
            let _: [u8; 1] = read(&mut of(&streams[other])?)?;
        }
        Ok(received)
    }
}
