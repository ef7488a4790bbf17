//! CSV files with a header (RFC 4180), read strictly: damage by a spreadsheet or a script is reported with
//! its line, not guessed at.

use std::path::{Path, PathBuf};

use anyhow::Result;
use csv::{Reader, ReaderBuilder, StringRecord};

use super::lookalike;
use crate::files::read_whole;
use crate::usage;

/// The most bytes of a text file.
const MAX_BYTES: u64 = 256 << 20;

/// A CSV file: its header and its text, whose rows are read one after another.
pub struct Table {
    path: PathBuf,
    text: String,
    header_line: usize,
    header: StringRecord,
}

impl Table {
    /// Reads a file. Fields are separated by commas; a field with a comma, a quote or a line break is quoted,
    /// and quotes inside it are doubled. A byte-order mark, any kind of line end and empty lines are allowed.
    ///
    /// # Errors
    /// A usage error with the file and, if it applies, the line: the file cannot be read, is too large, not
    /// UTF-8 or empty, or its header has wrong quotes.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let mut rows = TableRows::new(path, &text, None);
        let Some((header_line, header)) = rows.next_row()? else {
            return Err(usage!("{}: is empty; its first line must name the columns", path.display()));
        };
        let header = header.clone();
        Ok(Self { path: path.into(), text, header_line, header })
    }

    /// The position of the column called `name`; `None` if there is no such column. Other columns may have
    /// any names.
    ///
    /// # Errors
    /// A usage error if two columns have the name, or if one has nearly the name and would be ignored.
    pub fn column(&self, name: &str) -> Result<Option<usize>> {
        let mut found = (0..self.header.len()).filter(|&column| self.header[column].trim() == name);
        let place = self.header_place();
        match (found.next(), found.next()) {
            (Some(first), None) => Ok(Some(first)),
            (Some(_), Some(_)) => Err(usage!("{place}: two columns are called {name:?}; rename one")),
            (None, _) => match self.header.iter().find(|column| lookalike::are_alike(column, name)) {
                Some(alike) => {
                    Err(usage!("{place}: the column {alike:?} must be called {name:?}; rename it"))
                }
                None => Ok(None),
            },
        }
    }

    /// As [`Table::column`], for a column that must exist.
    ///
    /// # Errors
    /// A usage error if it does not.
    pub fn required_column(&self, name: &str) -> Result<usize> {
        self.column(name)?.ok_or_else(|| {
            let header: Vec<&str> = self.header.iter().take(20).collect();
            let first = header.first().copied().unwrap_or_default();
            let hint = match other_separator(&self.header) {
                _ if first.starts_with("sep=") => {
                    "remove this line, which only spreadsheets read".to_string()
                }
                Some(separator) => {
                    format!("fields are separated by {separator:?} here; save them separated by commas")
                }
                None => "the first line must name the columns, separated by commas".to_string(),
            };
            usage!("{}: no column {name:?} among {header:?}; {hint}", self.header_place())
        })
    }

    /// File and line of the header.
    fn header_place(&self) -> String {
        format!("{}:{}", self.path.display(), self.header_line)
    }

    /// The rows after the header.
    ///
    /// # Errors
    /// None, since [`Table::read`] has read the header before.
    pub fn rows(&self) -> Result<TableRows<'_>> {
        let mut rows = TableRows::new(&self.path, &self.text, Some(self.header.len()));
        rows.next_row()?;
        Ok(rows)
    }
}

/// The separator that a record seems to have, if it is a single field because it has no commas.
fn other_separator(record: &StringRecord) -> Option<char> {
    if record.len() == 1 {
        [';', '\t'].into_iter().find(|&separator| record[0].contains(separator))
    } else {
        None
    }
}

/// The records of a text one after another; only one is in memory.
pub struct TableRows<'a> {
    path: &'a Path,
    text: &'a str,
    reader: Reader<&'a [u8]>,
    record: StringRecord,
    /// The byte after the last record, and its line, counted from 1.
    start: usize,
    line: usize,
    /// Number of fields in every record, if it is known.
    fields: Option<usize>,
}

impl<'a> TableRows<'a> {
    fn new(path: &'a Path, text: &'a str, fields: Option<usize>) -> Self {
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        Self { path, text, reader, record: StringRecord::new(), start: 0, line: 1, fields }
    }

    /// Line, counted from 1, and fields of the next row, as many as the header has; `None` after the last
    /// row.
    ///
    /// # Errors
    /// A usage error with file and line for wrong quotes or another number of fields.
    pub fn next_row(&mut self) -> Result<Option<(usize, &StringRecord)>> {
        let (path, text) = (self.path.display(), self.text);
        if !self.reader.read_record(&mut self.record).map_err(|error| usage!("{path}: {error}"))? {
            return Ok(None);
        }
        // The text read: remaining line ends and empty lines, then the record.
        let end = usize::try_from(self.reader.position().byte()).unwrap_or(text.len()).min(text.len());
        let raw = text.get(self.start..end).unwrap_or_default();
        let written = raw.trim_start_matches(['\r', '\n']);
        let begins = end - written.len();
        let line = self.line + line_ends(text.as_bytes(), self.start..begins);
        self.line = line + line_ends(text.as_bytes(), begins..end);
        self.start = end;
        if !is_written_as(&self.record, written.trim_end_matches(['\r', '\n'])) {
            return Err(usage!(
                "{path}:{line}: wrong quotes; a field with a comma or a quote must stand in quotes, each quote inside it doubled"
            ));
        }
        if let Some(wanted) = self.fields.filter(|&wanted| wanted != self.record.len()) {
            let found = self.record.len();
            let remedy = match other_separator(&self.record).filter(|_| found < wanted) {
                Some(separator) => {
                    format!("fields are separated by {separator:?} here, which must be commas")
                }
                None => "put a field with a comma in quotes".to_string(),
            };
            return Err(usage!("{path}:{line}: {found} fields, but the header names {wanted}; {remedy}"));
        }
        Ok(Some((line, &self.record)))
    }
}

/// Number of line ends in a part of a text: LF, CR, or CR LF together, also if the part begins between these
/// two.
fn line_ends(text: &[u8], part: std::ops::Range<usize>) -> usize {
    let ends = |&at: &usize| match text[at] {
        b'\r' => true,
        b'\n' => at == 0 || text[at - 1] != b'\r',
        _ => false,
    };
    part.filter(ends).count()
}

/// Whether `written` is a correct notation of `record`. The parser accepts any text; its reading was right
/// only if writing the record again gives the same text.
fn is_written_as(record: &StringRecord, written: &str) -> bool {
    let mut rest = Some(written);
    for (i, field) in record.iter().enumerate() {
        rest = rest.and_then(|rest| if i == 0 { Some(rest) } else { rest.strip_prefix(',') });
        rest = rest.and_then(|rest| match rest.strip_prefix('"') {
            Some(quoted) => quoted.strip_prefix(&field.replace('"', "\"\""))?.strip_prefix('"'),
            None if field.contains('"') => None,
            None => rest.strip_prefix(field),
        });
    }
    rest == Some("")
}

/// The lines of a text, whose line ends are LF, CR or both, each with its number from 1.
pub fn numbered_lines(text: &str) -> Vec<(usize, String)> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    (1..).zip(text.lines().map(String::from)).collect()
}

/// The text of a file without its byte-order mark.
///
/// # Errors
/// A usage error with the file: it cannot be read, is too large, is not text, or is not UTF-8 (with the
/// line).
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = read_whole(path, MAX_BYTES)?;
    let wrong = |at: usize, problem: &str| {
        let line = 1 + line_ends(&bytes, 0..at);
        usage!("{}:{line}: {problem}", path.display())
    };
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(wrong(0, "is a spreadsheet or another zip file; export it as CSV in UTF-8"));
    }
    // Every second byte of Latin text in UTF-16 is zero; UTF-8 has none.
    let zero = bytes.iter().position(|&byte| byte == 0);
    if let Some(at) =
        zero.or([b"\xff\xfe", b"\xfe\xff"].iter().any(|&mark| bytes.starts_with(mark)).then_some(0))
    {
        return Err(wrong(at, "not UTF-8, but UTF-16 or no text at all; save the file as UTF-8"));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        let at = error.valid_up_to();
        return Err(wrong(at, &format!("not UTF-8 at the byte 0x{:02x}; save the file as UTF-8", bytes[at])));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a file with this content, each with its line, or the error without the file's name.
    fn read(content: &[u8]) -> Result<Vec<(usize, Vec<String>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, content).unwrap();
        let rows = || -> Result<_> {
            let table = Table::read(&path)?;
            let (mut found, mut rows) = (Vec::new(), table.rows()?);
            while let Some((line, row)) = rows.next_row()? {
                found.push((line, row.iter().map(String::from).collect()));
            }
            Ok(found)
        };
        rows().map_err(|error| {
            let text = error.to_string();
            text.split_once("t.csv").map_or(text.clone(), |(_, rest)| rest.to_string())
        })
    }

    fn row(line: usize, fields: &[&str]) -> (usize, Vec<String>) {
        (line, fields.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rows_come_with_their_lines() {
        let expected = vec![row(2, &["1", "x"]), row(4, &["2", "y"])];
        for text in ["a,b\n1,x\n\n2,y\n", "a,b\r\n1,x\r\n\r\n2,y", "\u{feff}a,b\n1,\"x\"\n\r\n\"2\",y\n\n\n"]
        {
            assert_eq!(read(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        // Quotes hold commas, quotes and line breaks; the lines after them are counted right.
        let text = b"\n\"a\",b\n\"1,\"\"2\"\"\",\"two\r\nlines\"\n,\"\"\n";
        assert_eq!(read(text).unwrap(), [row(3, &["1,\"2\"", "two\r\nlines"]), row(5, &["", ""])]);
        assert_eq!(read(b"a\n").unwrap(), []);
        // Every kind of line end counts one, also inside quotes and mixed.
        for ends in ["\n", "\r", "\r\n"] {
            let text = "a,b|1,x||2,\"y|z\"|3,w|".replace('|', ends);
            let expected = [row(2, &["1", "x"]), row(4, &["2", &format!("y{ends}z")]), row(6, &["3", "w"])];
            assert_eq!(read(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        let expected: Vec<_> = (2..6).map(|line| row(line, &["1", "x"])).collect();
        assert_eq!(read(b"a,b\r1,x\n1,x\r\n1,x\r1,x").unwrap(), expected);
        let expected: Vec<_> = [3, 5].map(|line| row(line, &["1", "x"])).to_vec();
        assert_eq!(read(b"\ra,b\n1,x\n\r1,x\r\n\r").unwrap(), expected);
    }

    #[test]
    fn lines_of_any_kind_are_numbered() {
        let lines: Vec<(usize, String)> =
            [(1, "a"), (2, ""), (3, "b"), (4, "c")].map(|(n, l)| (n, l.to_string())).to_vec();
        for text in ["a\n\nb\nc\n", "a\r\rb\rc", "a\r\n\r\nb\r\nc\r\n", "a\r\n\rb\nc"] {
            assert_eq!(numbered_lines(text), lines, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_csv_is_told_with_its_line() {
        for (text, expected) in [
            (&b""[..], ": is empty"),
            (b"\xef\xbb\xbf\n\r\n", ": is empty"),
            (b"a,b\n1\n", ":2: 1 fields, but the header names 2"),
            (b"a,b\n1,2\n1,2,\n", ":3: 3 fields"),
            (b"a,b\n\n1,\"2\n3,4\n5,6", ":3: wrong quotes"),
            (b"a,b\n1,\"2", ":2: wrong quotes"),
            (b"a,b\n1,2\n\"1\"x,2\n", ":3: wrong quotes"),
            (b"a,b\n1\"x,2\n", ":2: wrong quotes"),
            (b"a,b\n1, \"2\"\n", ":2: wrong quotes"),
            (b"a,b\n1,2\nx,\xff\n", ":3: not UTF-8"),
            (b"a,b\r1,2\rx,\xe9\r", ":3: not UTF-8 at the byte 0xe9; save the file as UTF-8"),
            (b"a,b\r\n1,2\r\nx,\xe9", ":3: not UTF-8"),
            (b"\xff\xfea\0,\0b\0", ":1: not UTF-8, but UTF-16"),
            (b"\xfe\xff\0a\0,", ":1: not UTF-8, but UTF-16"),
            (b"\xff\xfe", ":1: not UTF-8, but UTF-16"),
            (b"a\0,\0b\0\n\0", ":1: not UTF-8, but UTF-16"),
            (b"a,b\n1,\0\n", ":2: not UTF-8, but UTF-16 or no text at all"),
            (b"PK\x03\x04\x14\0", ":1: is a spreadsheet"),
            (b"a,b\r1\r", ":2: 1 fields, but the header names 2"),
            (b"a,b\r\r1,2\r3,4,5\r", ":4: 3 fields"),
            (b"a,b\r1,\"x\ry\"\r3\r", ":4: 1 fields"),
            (b"a,b\r1,\"2\r3,4\r5,6", ":2: wrong quotes"),
            (b"a,b\n1;2\n", ":2: 1 fields, but the header names 2; fields are separated by ';' here"),
            (b"a,b\n1\t2\n", ":2: 1 fields, but the header names 2; fields are separated by '\\t' here"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{:?}: {error}", String::from_utf8_lossy(text));
        }
        assert!(
            Table::read(Path::new("/nowhere.csv")).is_err_and(|e| e.to_string().contains("cannot be read"))
        );
        assert!(Table::read(Path::new("/")).is_err_and(|e| e.to_string().contains("is a folder")));
    }

    #[test]
    fn columns_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "x, path ,x,\n1,2,3,4\n").unwrap();
        let table = Table::read(&path).unwrap();
        assert_eq!((table.column("path").unwrap(), table.column("y").unwrap()), (Some(1), None));
        assert!(table.column("x").is_err_and(|error| error.to_string().contains("two columns")));
        assert!(table.required_column("y").is_err_and(|error| error.to_string().contains("no column \"y\"")));
    }

    /// A column that is nearly called as it must be is not passed over, and a header in another format is
    /// recognised.
    #[test]
    fn headers_that_are_nearly_right_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let column = |header: &str| {
            std::fs::write(&path, format!("{header}\n")).unwrap();
            Table::read(&path)
                .and_then(|table| table.required_column("path"))
                .map_err(|error| error.to_string())
        };
        for header in [
            "Path,x",
            "PATH,x",
            "pa\u{200b}th,x",
            "p\u{430}th,x",
            "\u{ff50}\u{ff41}\u{ff54}\u{ff48},x",
            "x,path\u{feff}",
        ] {
            let error = column(header).unwrap_err();
            assert!(
                error.contains(":1: the column ") && error.contains("must be called \"path\"; rename it"),
                "{error}"
            );
        }
        for (header, part) in [
            ("path;x", "separated by ';' here"),
            ("path\tx", "separated by '\\t' here"),
            ("sep=,", "remove this line"),
            ("sep=;", "remove this line"),
            ("file,x", "the first line must name the columns"),
        ] {
            let error = column(header).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!([column("path,Path"), column("x, path "), column("\"path\"")], [Ok(0), Ok(1), Ok(0)]);
    }
}
