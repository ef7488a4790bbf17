//! `records data fetch`: transfers from a misbehaving server, hostile archives, and what remains in the
//! folder.
#![cfg(feature = "fetch")]

#[path = "support/scripted_server.rs"]
mod scripted_server;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use records::data::archive::{Archive, ArchiveFile, FileSize};
use records::data::fetch::{FetchSettings, Fetched, Patience, fetch};
use records::data::registry::cifar::CIFAR10_ARCHIVE as CIFAR10;
use records::error::exit_code;
use records::text::hex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use scripted_server::Turn::{BreaksOff, Closes, Endless, Honest, IgnoresRange, Silent, Stalls};
use scripted_server::{Server, TAG, Turn, says};

/// Length of the small archive's images.
const IMAGES: usize = 20_000;

/// Incompressible bytes, so that positions in the archive correspond to positions in the files.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The files of the small archive by name.
fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    [("train.bin", noise(1, IMAGES)), ("test.bin", noise(2, 4_000)), ("names.txt", b"owl\ntit\n".to_vec())]
        .into()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The description of `packed` as the small archive.
fn described(packed: &[u8]) -> Archive {
    let sha256 = hex(&Sha256::digest(packed));
    Archive {
        word: "small",
        title: "Small",
        file_name: "small.tar.gz",
        url: "http://nowhere.invalid/small.tar.gz",
        bytes: packed.len() as u64,
        sha256: sha256.leak(),
        folder: "small",
        files: &[
            ArchiveFile { name: "train.bin", size: FileSize::Exactly(IMAGES as u64) },
            ArchiveFile { name: "test.bin", size: FileSize::Exactly(4_000) },
            ArchiveFile { name: "names.txt", size: FileSize::AtMost(100) },
        ],
    }
}

/// A tar archive, entry by entry. Names and links are written as given, however bad.
#[derive(Clone, Default)]
struct Tape(Vec<u8>);

impl Tape {
    fn entry(mut self, name: &str, kind: u8, link: &str, body: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        fields.typeflag = [kind];
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, body: &[u8]) -> Self {
        self.entry(name, b'0', "", body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// The folder and the files of the small archive.
    fn good() -> Self {
        let folder = Tape::default().entry("small/", b'5', "", b"");
        contents().iter().fold(folder, |tape, (name, body)| tape.file(&format!("small/{name}"), body))
    }
}

fn small() -> Vec<u8> {
    gzip(&Tape::good().end())
}

/// Names in `folder`, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn assert_unpacked(case: &str, folder: &Path) {
    let contents = contents();
    assert_eq!(names(folder), contents.keys().copied().collect::<Vec<_>>(), "{case}");
    for (name, body) in contents {
        assert!(fs::read(folder.join(name)).unwrap() == body, "{case}: {name} differs");
    }
}

/// Asserts a failed run whose message contains all parts.
#[track_caller]
fn assert_failed(case: &str, result: Result<Fetched>, code: u8, parts: &[&str]) {
    let error = result.expect_err(case);
    let message = format!("{error:#}");
    assert_eq!(exit_code(&error), code, "{case}: {message}");
    for part in parts {
        assert!(message.contains(part), "{case}: {part:?} is not in {message:?}");
    }
}

/// Two further attempts without pause. Reading waits long enough for a machine under load.
fn settings(server: &Server) -> FetchSettings {
    FetchSettings {
        mirror: Some(server.url.clone()),
        keep_archive: false,
        patience: Patience {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(10),
            waits: vec![Duration::ZERO; 2],
            progress: u64::MAX,
            least_bytes: 1,
            slow_for: Duration::from_secs(60),
        },
    }
}

const PART: &str = "small.tar.gz.part";

/// A case: its name, the bytes of an earlier run, the server's script, and where each request begins.
type Arrival<'a> = (&'a str, &'a [u8], Vec<Turn>, Vec<Option<usize>>);

/// Asserts that the archive `packed` arrives in each case, and nothing else is left in the folder.
fn assert_arrives(packed: &[u8], rows: Vec<Arrival>) {
    for (case, earlier, script, starts) in rows {
        let data = TempDir::new().unwrap();
        if !earlier.is_empty() {
            fs::write(data.path().join(PART), earlier).unwrap();
        }
        let server = Server::start(packed.to_vec(), &script);
        let fetched = fetch(&described(packed), data.path(), &settings(&server));
        let folder = data.path().join("small");
        assert_eq!(
            fetched.unwrap_or_else(|error| panic!("{case}: {error:#}")),
            Fetched::Downloaded(folder.clone())
        );
        assert_unpacked(case, &folder);
        assert_eq!(names(data.path()), ["small"], "{case}: nothing else is left");
        assert_eq!(server.starts(), starts, "{case}");
    }
}

/// The head of a redirect to `place`.
fn found(place: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close")
}

#[test]
fn an_archive_arrives_in_spite_of_what_breaks() {
    let packed = small();
    let total = packed.len();
    let junk = noise(9, 700);
    let short = says("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close", b"");
    let busy = says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close", b"busy");
    let unsized_answer = says("HTTP/1.1 200 OK\r\nConnection: close", &packed);
    let chunked = [format!("{total:x}\r\n").as_bytes(), &packed, b"\r\n0\r\n\r\n"].concat();
    let chunked = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close", &chunked);
    assert_arrives(
        &packed,
        vec![
            ("honest", b"", vec![Honest], vec![None]),
            ("no length", b"", vec![unsized_answer], vec![None]),
            ("in chunks", b"", vec![chunked], vec![None]),
            ("breaks off, then resumes", b"", vec![BreaksOff(1000), Honest], vec![None, Some(1000)]),
            (
                "breaks off twice",
                b"",
                vec![BreaksOff(1000), BreaksOff(234), Honest],
                vec![None, Some(1000), Some(1234)],
            ),
            (
                "breaks off, then ignores the range",
                b"",
                vec![BreaksOff(1000), IgnoresRange],
                vec![None, Some(1000)],
            ),
            ("closes at once, then is honest", b"", vec![Closes, Closes, Honest], vec![None; 3]),
            ("is busy, then honest", b"", vec![busy, Honest], vec![None; 2]),
            ("redirects", b"", vec![says(&found("/elsewhere"), b""), Honest], vec![None; 2]),
            ("goes on from an earlier run", &packed[..5000], vec![Honest], vec![Some(5000)]),
            (
                "goes on behind a redirect",
                &packed[..5000],
                vec![says(&found("/elsewhere"), b""), Honest],
                vec![Some(5000); 2],
            ),
            ("an earlier run had all", &packed, vec![], vec![]),
            ("an earlier run had something else", &junk, vec![Honest, Honest], vec![Some(700), None]),
            ("has less than an earlier run had", &junk, vec![short, Honest], vec![Some(700), None]),
        ],
    );
}

#[test]
fn an_archive_arrives_in_spite_of_wrong_parts() {
    let packed = small();
    let total = packed.len();
    let last = total - 1;
    // Answers to the request for the bytes after the first 5,000.
    let rest = |headers: &str, body: &[u8]| {
        says(&format!("HTTP/1.1 206 Partial Content\r\n{headers}\r\nConnection: close"), body)
    };
    let range = |range: String| rest(&format!("Content-Range: {range}"), &packed[5000..]);
    let sized =
        rest(&format!("Content-Range: bytes 5000-{last}/{total}\r\nContent-Length: 9"), &packed[5000..5009]);
    let changed =
        rest(&format!("Content-Range: bytes 1000-{last}/{total}\r\nETag: \"second\""), &packed[1000..]);
    let other_date = "HTTP/1.1 200 OK\r\nLast-Modified: Thu, 04 Jun 2009 20:36:00 GMT\r\nConnection: close";
    let dated = rest(
        &format!("Content-Range: bytes 100-{last}/{total}\r\nLast-Modified: Fri, 05 Jun 2009 20:36:00 GMT"),
        &packed[100..],
    );
    let multipart = rest("Content-Type: multipart/byteranges; boundary=x", b"--x\r\n\r\n--x--");
    let kept = &packed[..5000];
    let again = || vec![Some(5000), None];
    let rows: Vec<Arrival> = vec![
        ("another start", kept, vec![range(format!("bytes 4999-{last}/{total}")), Honest], again()),
        ("the whole as a part", kept, vec![range(format!("bytes 0-{last}/{total}")), Honest], again()),
        (
            "of something longer",
            kept,
            vec![range(format!("bytes 5000-{last}/{}", total + 1)), Honest],
            again(),
        ),
        ("of something shorter", kept, vec![range(format!("bytes 5000-{last}/{last}")), Honest], again()),
        ("beyond the end", kept, vec![range(format!("bytes 5000-{total}/{total}")), Honest], again()),
        ("ends before it begins", kept, vec![range(format!("bytes 5000-4000/{total}")), Honest], again()),
        ("without a total", kept, vec![range(format!("bytes 5000-{last}")), Honest], again()),
        ("without an end", kept, vec![range(format!("bytes 5000-/{total}")), Honest], again()),
        ("of no number", kept, vec![range(format!("bytes x-y/{total}")), Honest], again()),
        ("without a range", kept, vec![rest("X-Range: none", &packed[5000..]), Honest], again()),
        ("in several parts", kept, vec![multipart, Honest], again()),
        ("of another length", kept, vec![sized, Honest], again()),
        ("of unknown total", kept, vec![range(format!("bytes 5000-{last}/*"))], vec![Some(5000)]),
        ("another version", b"", vec![BreaksOff(1000), changed, Honest], vec![None, Some(1000), None]),
        (
            "another date",
            b"",
            vec![says(other_date, &packed[..100]), dated, Honest],
            vec![None, Some(100), None],
        ),
        (
            "a part, then two",
            kept,
            vec![range(format!("bytes 5000-{last}/{last}")), BreaksOff(7000), Honest],
            vec![Some(5000), None, None],
        ),
    ];
    assert_arrives(&packed, rows);
}

#[test]
fn the_rest_is_asked_of_the_same_version() {
    let packed = small();
    let data = TempDir::new().unwrap();
    let server = Server::start(packed.clone(), &[BreaksOff(1000), Honest]);
    fetch(&described(&packed), data.path(), &settings(&server)).unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].path, "/small.tar.gz", "the archive's name behind the mirror's");
    assert_eq!((asked[0].if_range.as_deref(), asked[1].if_range.as_deref()), (None, Some(TAG)));

    // A weak tag says nothing about the bytes, so the date is used.
    let head = format!(
        "HTTP/1.1 200 OK\r\nETag: W/{TAG}\r\nLast-Modified: Thu, 04 Jun 2009 20:36:00 GMT\r\nContent-Length: {}",
        packed.len()
    );
    let data = TempDir::new().unwrap();
    let server = Server::start(packed.clone(), &[says(&head, &packed[..100]), Honest]);
    fetch(&described(&packed), data.path(), &settings(&server)).unwrap();
    assert_eq!(server.asked()[1].if_range.as_deref(), Some("Thu, 04 Jun 2009 20:36:00 GMT"));
    assert_eq!(server.starts(), [None, Some(100)]);
}

#[test]
fn progress_restarts_the_pauses() {
    let packed = small();
    let script: Vec<Turn> = (0..12).map(|_| BreaksOff(1500)).chain([Honest]).collect();
    let data = TempDir::new().unwrap();
    let server = Server::start(packed.clone(), &script);
    let mut settings = settings(&server);
    settings.patience.progress = 1500;
    fetch(&described(&packed), data.path(), &settings).unwrap();
    assert_eq!(server.asked().len(), 13);

    let data = TempDir::new().unwrap();
    let server = Server::start(packed.clone(), &script);
    settings.mirror = Some(server.url.clone());
    settings.patience.progress = 1501;
    let result = fetch(&described(&packed), data.path(), &settings);
    assert_failed("too little", result, 1, &["broke off after 4500 of"]);
}

/// A case of a failed transfer: its name, the bytes of an earlier run, the server's script, parts of the
/// message, and how many bytes are kept for the next run.
type FailedTransfer<'a> = (&'a str, &'a [u8], Vec<Turn>, &'a [&'a str], usize);

/// Asserts that the transfer of `packed` fails in each case.
fn assert_refused(packed: &[u8], rows: Vec<FailedTransfer>) {
    let (archive, total) = (described(packed), packed.len());
    for (case, earlier, script, parts, kept) in rows {
        let data = TempDir::new().unwrap();
        // A folder that is created for the download is removed again if nothing arrived.
        let folder = data.path().join("made/for/it");
        if !earlier.is_empty() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(PART), earlier).unwrap();
        }
        let server = Server::start(packed.to_vec(), &script);
        let result = fetch(&archive, &folder, &settings(&server));
        let kept_text = format!("{kept} of {total} bytes are kept in {}", folder.join(PART).display());
        let message = format!("{:#}", result.as_ref().expect_err(case));
        assert_failed(case, result, 1, parts);
        assert!(message.contains(&server.url), "{case}: {message}");
        assert_eq!(message.contains(&kept_text), kept > 0, "{case}: {message}");
        if kept > 0 {
            assert_eq!(names(&folder), [PART], "{case}");
            assert!(fs::read(folder.join(PART)).unwrap() == packed_part(packed, case, kept), "{case}");
        } else {
            let nothing: Vec<String> = if earlier.is_empty() { vec![] } else { vec!["made".into()] };
            assert_eq!(names(data.path()), nothing, "{case}");
            assert!(names(&folder).is_empty(), "{case}");
        }
        assert_eq!(server.asked().len(), if case.contains("circle") { 6 } else { script.len() }, "{case}");
    }
}

/// An answer with the line `status` and without a body.
fn status(status: &str) -> Turn {
    says(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close"), b"")
}

#[test]
fn what_is_not_the_archive_is_refused() {
    let packed = small();
    let total = packed.len();
    let longer = [&packed[..], b"x"].concat();
    let endless = [&packed[..], &[0; 1 << 20]].concat();
    let mut flipped = packed.clone();
    flipped[total / 2] ^= 1;
    let archive = described(&packed);
    let ok = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close");
    let round = says("HTTP/1.1 301 Moved\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close", b"");
    let earlier = &packed[..100];
    let sums = ["SHA-256", archive.sha256, "--mirror"];
    let rows: Vec<FailedTransfer> = vec![
        ("breaks off too often", b"", vec![BreaksOff(500); 3], &["broke off after 1500 of"], 1500),
        ("closes at once", b"", vec![Closes; 3], &["broke off after 0 of"], 0),
        ("has more", b"", vec![says(&ok(total + 1), &longer)], &["small.tar.gz has", "--mirror"], 0),
        ("has less", b"", vec![says(&ok(total - 1), &packed[1..])], &["small.tar.gz has", "--mirror"], 0),
        (
            "sends more",
            b"",
            vec![says("HTTP/1.1 200 OK\r\nConnection: close", &longer)],
            &["sends more than", "thrown away"],
            0,
        ),
        (
            "sends without end",
            b"",
            vec![says("HTTP/1.1 200 OK\r\nConnection: close", &endless)],
            &["sends more than", "thrown away"],
            0,
        ),
        (
            "sends more behind a range",
            earlier,
            vec![says(
                &format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-{}/{total}", total - 1),
                &longer[100..],
            )],
            &["sends more than"],
            0,
        ),
        (
            "sends less",
            b"",
            vec![says("HTTP/1.1 200 OK\r\nConnection: close", &packed[1..]), Closes, Closes],
            &["broke off"],
            total - 1,
        ),
        ("has other bytes", b"", vec![says(&ok(total), &flipped)], &sums, 0),
        ("has other bytes, twice", earlier, vec![says(&ok(total), &flipped); 2], &sums, 0),
        ("redirects in a circle", b"", vec![round; 8], &["redirects more than 5 times"], 0),
        ("404", b"", vec![status("404 Not Found")], &["status 404"], 0),
        ("no HTTP", b"", vec![says("SSH-2.0-OpenSSH_9.7", b"")], &[], 0),
        ("is busy", b"", vec![status("503 Service Unavailable"); 3], &["status 503"], 0),
    ];
    assert_refused(&packed, rows);
}

#[test]
fn what_is_not_the_rest_is_refused() {
    let packed = small();
    let total = packed.len();
    let page = b"<html>Please log in</html>";
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close";
    let range = |range: &str| {
        says(
            &format!("HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nConnection: close"),
            &packed[50..],
        )
    };
    let elsewhere = range(&format!("bytes 50-{}/{total}", total - 1));
    let longer_range = range(&format!("bytes 100-{total}/{}", total + 1));
    let earlier = &packed[..100];
    let rows: Vec<FailedTransfer> = vec![
        ("403 for the rest", earlier, vec![status("403 Forbidden")], &["status 403"], 100),
        ("416 for the whole", b"", vec![status("416 Range Not Satisfiable")], &["status 416"], 0),
        ("a part unasked", b"", vec![range(&format!("bytes 0-{}/{total}", total - 1))], &["status 206"], 0),
        // The kept bytes are not discarded for a server that has nothing better.
        ("another part", earlier, vec![elsewhere, Closes, Closes], &["broke off after 100 of"], 100),
        (
            "a part of something longer",
            earlier,
            vec![longer_range, status("404 Not Found")],
            &["status 404"],
            100,
        ),
        (
            "a part of who knows what",
            earlier,
            vec![range("bytes"), status("403 Forbidden")],
            &["status 403"],
            100,
        ),
        ("less, then nothing", earlier, vec![status("416 Range Not Satisfiable"); 2], &["status 416"], 100),
        ("a page", b"", vec![says(html, page)], &["text/html", "small.tar.gz"], 0),
        ("a page for the rest", earlier, vec![says(html, page)], &["text/html", "small.tar.gz"], 100),
    ];
    assert_refused(&packed, rows);
}

/// The kept bytes: the beginning of the archive, or what the server sent instead.
fn packed_part<'a>(packed: &'a [u8], case: &str, kept: usize) -> &'a [u8] {
    if case == "sends less" { &packed[1..] } else { &packed[..kept] }
}

#[test]
fn a_server_that_stalls_is_given_up_and_the_next_run_goes_on() {
    let packed = small();
    let archive = described(&packed);
    let data = TempDir::new().unwrap();
    let server = Server::start(packed.clone(), &[Stalls(800), Silent, Stalls(0)]);
    let mut impatient = settings(&server);
    impatient.patience.read = Duration::from_millis(500);
    let result = fetch(&archive, data.path(), &impatient);
    assert_failed("stalls", result, 1, &["sent nothing for 500ms", "800 of", PART, "the same command"]);
    assert_eq!(server.starts(), [None, Some(800), Some(800)]);
    assert_eq!(names(data.path()), [PART]);

    let server = Server::start(packed, &[Honest]);
    fetch(&archive, data.path(), &settings(&server)).unwrap();
    assert_eq!(server.starts(), [Some(800)]);
    assert_unpacked("next run", &data.path().join("small"));
}

/// Bytes keep arriving, but the transfer never reaches the end.
#[test]
fn a_transfer_without_end_is_ended() {
    let packed = small();
    let archive = described(&packed);
    let tick = Duration::from_millis(20);
    let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", packed.len());
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n";
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let rows: [(&str, &str, &[u8], &str); 7] = [
        ("some bytes a second", &ok, b"x", "sent only"),
        ("a chunk of one byte at a time", chunked, b"1\r\nx\r\n", "sent only"),
        ("a chunk's length digit by digit", chunked, b"0", "sent only 0 bytes"),
        ("a head that does not end", "HTTP/1.1 200 OK\r\nX-A: ", b"x", "sent nothing for"),
        ("headers without number", "HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", "sent nothing for"),
        ("hints and no answer", hint, hint.as_bytes(), "sent nothing for"),
        ("a redirect whose body does not end", redirect, &[b'x'; 1000], "no answer within"),
    ];
    for (case, beginning, piece, part) in rows {
        let turn = Endless(beginning.into(), piece.into(), tick);
        let data = TempDir::new().unwrap();
        let server = Server::start(packed.clone(), &vec![turn; 3]);
        let mut settings = settings(&server);
        let patience = &mut settings.patience;
        (patience.connect, patience.read) = (Duration::from_millis(300), Duration::from_millis(400));
        (patience.least_bytes, patience.slow_for) = (1000, Duration::from_millis(500));
        let begun = Instant::now();
        let result = fetch(&archive, data.path(), &settings);
        assert!(begun.elapsed() < Duration::from_secs(30), "{case}");
        assert_failed(case, result, 1, &[part, &server.url]);
        assert_eq!(server.asked().len(), 3, "{case}");
    }
}

/// A server that sends the beginning again and again, of varying length, makes no progress.
#[test]
fn what_is_sent_again_is_no_progress() {
    let packed = small();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close", packed.len());
    let data = TempDir::new().unwrap();
    let script: Vec<Turn> = [9000, 1000].repeat(25).iter().map(|&end| says(&head, &packed[..end])).collect();
    let server = Server::start(packed.clone(), &script);
    let mut settings = settings(&server);
    settings.patience.progress = 5000;
    let result = fetch(&described(&packed), data.path(), &settings);
    assert_failed("again", result, 1, &["broke off after 9000 of"]);
    assert_eq!(server.asked().len(), 3);
}

/// What may be in the place of the download's file.
#[test]
fn a_part_file_that_is_not_ours_is_left_alone() {
    let packed = small();
    let archive = described(&packed);
    let server = Server::start(packed.clone(), &[]);
    /// Creates it at the first path; the second is a file that must not be touched.
    type Make = fn(&Path, &Path);
    let make: [(&str, Make); 5] = [
        ("symbolic link", |part, other| symlink(other, part).unwrap()),
        ("symbolic link", |part, other| symlink(other.with_file_name("missing"), part).unwrap()),
        ("hard link", |part, other| fs::hard_link(other, part).unwrap()),
        ("pipe", |part, _| assert!(Command::new("mkfifo").arg(part).status().unwrap().success())),
        ("folder", |part, _| fs::create_dir(part).unwrap()),
    ];
    for (what, make) in make {
        let outer = TempDir::new().unwrap();
        let (data, other) = (outer.path().join("data"), outer.path().join("other"));
        fs::create_dir(&data).unwrap();
        fs::write(&other, b"precious").unwrap();
        make(&data.join(PART), &other);
        let result = fetch(&archive, &data, &settings(&server));
        assert_failed(what, result, 2, &[what, PART, "move it away"]);
        assert_eq!(fs::read(&other).unwrap(), b"precious", "{what}");
        assert_eq!(names(outer.path()), ["data", "other"], "{what}");

        // The same in the place of the archive, and of the folder into which it is unpacked.
        let data = outer.path().join("second");
        fs::create_dir(&data).unwrap();
        if what == "pipe" || what == "folder" {
            make(&data.join("small.tar.gz"), &other);
            assert_failed(what, fetch(&archive, &data, &settings(&server)), 2, &["small.tar.gz", what]);
        } else {
            fs::write(data.join("small.tar.gz"), &packed).unwrap();
            make(&data.join(".small.part"), &other);
            assert_failed(
                what,
                fetch(&archive, &data, &settings(&server)),
                2,
                &[".small.part", "move it away"],
            );
            assert_eq!(fs::read(&other).unwrap(), b"precious", "{what}");
        }
    }
    assert!(server.asked().is_empty(), "nobody is asked before");
}

#[test]
fn a_server_that_was_never_reached_is_told_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = TempDir::new().unwrap();
    let patient = FetchSettings { mirror: Some(format!("http://{free}/x")), ..FetchSettings::default() };
    let result = fetch(&described(&small()), &data.path().join("made"), &patient);
    assert_failed("refused", result, 1, &[&free.to_string(), "refused", "--mirror"]);
    assert!(names(data.path()).is_empty());
}

#[test]
fn what_lies_in_the_folder_is_used_or_left_alone() {
    let packed = small();
    let archive = described(&packed);
    let server = Server::start(packed.clone(), &[Honest]);
    let mut keeping = settings(&server);
    keeping.keep_archive = true;

    // Kept beside the folder, and used again when the folder is gone.
    let data = TempDir::new().unwrap();
    let folder = data.path().join("small");
    assert_eq!(fetch(&archive, data.path(), &keeping).unwrap(), Fetched::Downloaded(folder.clone()));
    assert_eq!(names(data.path()), ["small", "small.tar.gz"]);
    assert_eq!(fetch(&archive, data.path(), &keeping).unwrap(), Fetched::AlreadyThere(folder.clone()));
    assert_eq!(fetch(&archive, &folder, &keeping).unwrap(), Fetched::AlreadyThere(folder.clone()));
    fs::remove_dir_all(&folder).unwrap();
    // Left by a killed run.
    fs::create_dir_all(data.path().join(".small.part/x")).unwrap();
    fs::write(data.path().join(".small.part/train.bin"), b"half").unwrap();
    assert_eq!(fetch(&archive, data.path(), &settings(&server)).unwrap(), Fetched::FromFile(folder.clone()));
    assert_unpacked("from the kept archive", &folder);
    assert_eq!(names(data.path()), ["small", "small.tar.gz"], "the archive is not ours to remove");
    assert_eq!(server.asked().len(), 1, "the network was needed once");

    // Another archive under that name.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(data.path().join("small.tar.gz"), &packed[1..]).unwrap();
    for earlier in [&b""[..], &packed[..9]] {
        fs::write(data.path().join(PART), earlier).unwrap();
        let result = fetch(&archive, data.path(), &keeping);
        assert_failed(
            "another archive",
            result,
            2,
            &["small.tar.gz", "SHA-256", archive.sha256, "move it away"],
        );
        let kept: &[&str] = if earlier.is_empty() { &["small.tar.gz"] } else { &["small.tar.gz", PART] };
        assert_eq!(names(data.path()), kept);
    }

    // An incomplete data set is not replaced.
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("train.bin"), b"short").unwrap();
    let result = fetch(&archive, data.path(), &keeping);
    assert_failed("a part", result, 2, &["small", "train.bin has 5 bytes instead of 20000"]);
    assert_eq!(fs::read(folder.join("train.bin")).unwrap(), b"short");

    // A file in place of the folder, at either level.
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_failed("a file", fetch(&archive, &file, &keeping), 2, &["--data-dir", "cannot be created"]);

    // Another process is downloading.
    let data = TempDir::new().unwrap();
    let busy = File::create(data.path().join(PART)).unwrap();
    busy.lock().unwrap();
    assert_failed("busy", fetch(&archive, data.path(), &keeping), 2, &[PART, "another process"]);
    assert_eq!(server.asked().len(), 1);
}

/// Unpacks `packed` in the folder for data, outside of which nothing may change.
fn unpack(packed: &[u8]) -> (TempDir, Result<Fetched>) {
    let outer = TempDir::new().unwrap();
    let data = outer.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("small.tar.gz"), packed).unwrap();
    let result = fetch(&described(packed), &data, &FetchSettings::default());
    assert_eq!(names(outer.path()), ["data"], "something was written beside the folder for data");
    if result.is_ok() {
        assert_eq!(names(&data), ["small", "small.tar.gz"]);
    } else {
        assert_eq!(names(&data), ["small.tar.gz"]);
    }
    (outer, result)
}

#[test]
fn an_archive_cannot_write_what_it_wants() {
    let body = b"evil";
    let place: &[&str] = &["has no place in it"];
    let secret = TempDir::new().unwrap();
    fs::write(secret.path().join("secret"), b"secret").unwrap();
    let path = secret.path().join("secret").display().to_string();
    let truncated = |cut: usize| {
        let packed = small();
        packed[..packed.len() - cut].to_vec()
    };
    let mut wrong_crc = small();
    let crc = wrong_crc.len() - 8;
    wrong_crc[crc] ^= 1;
    let zeros = vec![0; 8 << 20];
    let cut = |bytes: usize| gzip(&Tape::good().end()[..bytes]);
    let without = |missing: &str| {
        let files = contents().into_iter().filter(|(name, _)| *name != missing);
        let tape =
            files.fold(Tape::default(), |tape, (name, body)| tape.file(&format!("small/{name}"), &body));
        gzip(&tape.end())
    };
    let bad = |tape: Tape| gzip(&tape.end());
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("above", bad(Tape::good().file("../evil", body)), place),
        ("above, first", bad(Tape::default().file("../evil", body)), place),
        ("through the folder", bad(Tape::good().file("small/../../evil", body)), place),
        ("through the folder and back", bad(Tape::good().file("small/../small/x.bin", body)), place),
        ("absolute", bad(Tape::good().file(&path, body)), place),
        ("absolute and ours", bad(Tape::default().file("/small/train.bin", &noise(1, IMAGES))), place),
        ("symbolic link", bad(Tape::default().entry("small/train.bin", b'2', &path, b"")), place),
        ("symbolic link for the folder", bad(Tape::default().entry("small", b'2', "/tmp", b"")), place),
        ("hard link", bad(Tape::default().entry("small/train.bin", b'1', &path, b"")), place),
        ("character device", bad(Tape::good().entry("small/null", b'3', "", b"")), place),
        ("block device", bad(Tape::good().entry("small/disk", b'4', "", b"")), place),
        ("pipe", bad(Tape::good().entry("small/pipe", b'6', "", b"")), place),
        ("a folder for a file", bad(Tape::default().entry("small/train.bin", b'5', "", b"")), place),
        ("another folder", bad(Tape::good().file("large/train.bin", body)), place),
        ("no folder", bad(Tape::good().file("train.bin", body)), place),
        ("a folder inside", bad(Tape::good().entry("small/x/", b'5', "", b"")), place),
        ("a file deeper", bad(Tape::good().file("small/x/train.bin", body)), place),
        ("no name", bad(Tape::good().file("", body)), place),
        (
            "a file twice",
            bad(Tape::good().file("small/test.bin", &noise(3, 4_000))),
            &["holds test.bin twice"],
        ),
        (
            "a longer file",
            bad(Tape::default().file("small/test.bin", &noise(3, 4_001))),
            &["4001 bytes", "4000"],
        ),
        (
            "a shorter file",
            bad(Tape::default().file("small/test.bin", &noise(3, 3_999))),
            &["3999 bytes", "4000"],
        ),
        ("a long text", bad(Tape::default().file("small/names.txt", &[b'x'; 101])), &["101 bytes", "100"]),
        ("a bomb for a text", bad(Tape::default().file("small/names.txt", &zeros)), &["8388608 bytes"]),
        ("a bomb beside", bad(Tape::good().file("small/more.bin", &zeros)), &["unpacks to more"]),
        ("a bomb for a long name", bad(Tape::default().entry("x", b'L', "", &zeros)), &["unpacks to more"]),
        ("a bomb behind the end", gzip(&[Tape::good().end(), zeros.clone()].concat()), &["unpacks to more"]),
        ("a file less", without("test.bin"), &["test.bin is missing"]),
        ("nothing in it", bad(Tape::default()), &["train.bin is missing"]),
        ("cut in a file", cut(3_000), &["damaged"]),
        ("cut in a header", cut(512 + 100), &["damaged"]),
        ("gzip cut short", truncated(10_000), &["damaged"]),
        ("gzip without its end", truncated(1), &["damaged"]),
        ("gzip with a wrong checksum", wrong_crc, &["damaged"]),
        ("no gzip", Tape::good().end(), &["damaged"]),
        ("no tar", gzip(&noise(4, 5_000)), &["damaged"]),
        ("empty", vec![], &["damaged"]),
    ];
    for (case, packed, parts) in rows {
        let (_folder, result) = unpack(&packed);
        assert_failed(case, result, 1, &[&["small.tar.gz"], parts].concat());
        assert_eq!(fs::read(secret.path().join("secret")).unwrap(), b"secret", "{case}");
    }
}

#[test]
fn further_plain_files_are_left_out_and_texts_may_be_missing() {
    let unexpected = Tape::good().file("./small/evil.sh", b"evil").file("small/train.bin~", b"old");
    let (outer, result) = unpack(&gzip(&unexpected.end()));
    result.unwrap();
    assert_unpacked("unexpected names", &outer.path().join("data/small"));

    let files = contents().into_iter().filter(|(name, _)| *name != "names.txt");
    let tape = files.fold(Tape::default(), |tape, (name, body)| tape.file(&format!("small/{name}"), &body));
    let (outer, result) = unpack(&gzip(&tape.end()));
    result.unwrap();
    assert_eq!(names(&outer.path().join("data/small")), ["test.bin", "train.bin"]);
}

/// A correct download that cannot be unpacked is kept, so that the next run need not transfer it again.
#[test]
fn a_checked_download_outlives_a_failed_unpacking() {
    let packed = small();
    let data = TempDir::new().unwrap();
    // Something is in the way of the folder for unpacking.
    fs::write(data.path().join(".small.part"), b"").unwrap();
    let server = Server::start(packed.clone(), &[Honest]);
    let result = fetch(&described(&packed), data.path(), &settings(&server));
    assert_failed("in the way", result, 1, &[".small.part", "bytes are kept in", PART]);
    fs::remove_file(data.path().join(".small.part")).unwrap();
    fetch(&described(&packed), data.path(), &settings(&server)).unwrap();
    assert_eq!(server.asked().len(), 1);
    assert_unpacked("unpacked later", &data.path().join("small"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whichever bytes of the tar archive are changed, there is no panic, and all files or none are unpacked.
    #[test]
    fn changed_archives_unpack_whole_or_not_at_all(
        changes in prop::collection::vec((0usize..512 * 3, any::<u8>(), any::<bool>()), 1..4),
    ) {
        // The headers of the folder, of the first file and of the last one.
        let mut tape = Tape::good().end();
        for (position, value, last) in changes {
            let place = if last { tape.len() - 1024 - 512 * 3 + position } else { position };
            tape[place] = value;
        }
        let (outer, result) = unpack(&gzip(&tape));
        if result.is_ok() {
            let folder = outer.path().join("data/small");
            prop_assert!(["test.bin", "train.bin"].iter().all(|name| folder.join(name).is_file()));
            prop_assert!(names(&folder).iter().all(|name| contents().contains_key(name.as_str())));
        }
    }
}

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
}

#[track_caller]
fn assert_one_line(output: &Output, code: i32, parts: &[&str]) {
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn the_command_says_what_it_did() {
    let data = TempDir::new().unwrap();
    let folder = data.path().join("d");
    let text = folder.to_str().unwrap();

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mirror = format!("http://{free}/");
    let unreached = records(&["data", "fetch", "cifar100", "--data-dir", text, "--mirror", &mirror]);
    assert_one_line(&unreached, 1, &["cifar-100-binary.tar.gz", "refused", "--mirror"]);
    assert!(!folder.exists(), "nothing is left");

    let run = records(&["train", "--dataset", "cifar100-lt-nu", "--data-dir", text, "--device", "cpu"]);
    assert_one_line(&run, 2, &[&format!("records data fetch cifar100 --data-dir {text}")]);

    let inside = folder.join("cifar-10-batches-bin");
    fs::create_dir_all(&inside).unwrap();
    for (name, bytes) in CIFAR10.needed() {
        File::create(inside.join(name)).unwrap().set_len(bytes).unwrap();
    }
    for name in ["cifar10", "cifar10-lt"] {
        let there = records(&["data", "fetch", name, "--data_dir", text, "--mirror", &mirror]);
        assert_eq!(there.status.code(), Some(0));
        let said = String::from_utf8(there.stdout).unwrap();
        assert_eq!(said, format!("CIFAR-10 is there already: {}\n", inside.display()));
        assert!(there.stderr.is_empty());
    }
}

#[test]
fn a_mirror_that_lies_is_found_out() {
    let data = TempDir::new().unwrap();
    let text = data.path().to_str().unwrap();
    // Everything but the contents is right.
    let server = Server::start(vec![0; CIFAR10.bytes as usize], &[Honest]);
    let output = records(&["data", "fetch", "cifar10", "--data-dir", text, "--mirror", &server.url]);
    assert_one_line(&output, 1, &[&server.url, "SHA-256", CIFAR10.sha256, "thrown away"]);
    assert!(names(data.path()).is_empty());
    assert_eq!(server.asked()[0].path, "/cifar-10-binary.tar.gz");
}
